//! Names of the objects that are generated for a ModelServing, from the name of the ModelServing.

use std::hash::Hasher as _;

use fnv::FnvHasher;

/// Name of the router's ServiceMonitor. Distinct from the router's own name, which users and charts use for
/// their monitors.
pub const ROUTER_SERVICE_MONITOR: &str = "kthena-keda-router";

/// Longest ScaledObject name, in bytes: KEDA names its HPA `keda-hpa-<name>` and allows that 63.
const MAX: usize = 54;

/// The ModelServing's own name, or, over 54 bytes, its beginning and a stable hash.
pub fn scaled_object(model_serving: &str) -> String {
    if model_serving.len() <= MAX {
        return model_serving.to_owned();
    }
    let suffix = format!("{:016x}", fnv1a(model_serving.as_bytes()));
    let room = MAX - suffix.len() - 1;
    let start = model_serving.get(..room).unwrap_or_default().trim_end_matches(['-', '.']);
    format!("{start}-{suffix}")
}

/// The HPA that KEDA creates for the ScaledObject (KEDA `controllers/keda/hpa.go`).
pub fn hpa(model_serving: &str) -> String {
    format!("keda-hpa-{}", scaled_object(model_serving))
}

/// The engines' PodMonitor. Distinct from the model's own name, which users use for their monitors.
pub fn pod_monitor(model_serving: &str) -> String {
    format!("kthena-keda-{}", scaled_object(model_serving))
}

/// The stand-in pod and its Service, at most 63 bytes, as a Service requires.
pub fn stand_in(model_serving: &str) -> String {
    // Names of Services have no dots.
    format!("{}-stand-in", scaled_object(model_serving).replace('.', "-"))
}

/// The ModelServingRole of a role, and its ScaledObject: the beginning of both names and a stable hash, because a
/// ModelServing may be called `<name>-<role>`.
pub fn role(model_serving: &str, role: &str) -> String {
    let suffix = format!("{:016x}", fnv1a(format!("{model_serving}/{role}").as_bytes()));
    let role: String = role.chars().map(|c| c.to_ascii_lowercase()).collect();
    let room = MAX.saturating_sub(suffix.len() + role.len() + 2);
    let start = model_serving.get(..room).unwrap_or(model_serving).trim_end_matches(['-', '.']);
    format!("{start}-{role}-{suffix}")
}

/// The ScaledObject of KEDA's HPA of this name.
pub fn scaled_object_of_hpa(hpa: &str) -> Option<&str> {
    hpa.strip_prefix("keda-hpa-")
}

/// Names of all generated objects and of KEDA's HPA.
pub fn generated(model_serving: &str) -> [String; 3] {
    [hpa(model_serving), pod_monitor(model_serving), scaled_object(model_serving)]
}

/// FNV-1a, 64 bits: the same in every release of this program, unlike the standard library's hasher.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_short_names() {
        assert_eq!(scaled_object(&"a".repeat(54)), "a".repeat(54));
    }

    #[test]
    fn stand_ins_fit_the_name_of_a_service() {
        assert_eq!(stand_in(&"a".repeat(63)).len(), 63);
        assert_eq!(stand_in("llama-3.1"), "llama-3-1-stand-in");
    }

    #[test]
    fn cuts_long_names_and_keeps_them_distinct() {
        let (a, b) =
            (scaled_object(&format!("{}a", "x".repeat(60))), scaled_object(&format!("{}b", "x".repeat(60))));
        assert_eq!((a.len(), b.len()), (54, 54));
        assert_ne!(a, b);
        assert!(a.starts_with(&"x".repeat(37)), "{a}");
    }

    #[test]
    fn roles_have_names_of_their_own() {
        assert_eq!(role("chat", "prefill"), "chat-prefill-5e24177b2d530258");
        assert_ne!(role("a-b", "c"), role("a", "b-c"));
        let long = role(&"x".repeat(253), &"R".repeat(12));
        assert!(long.len() == MAX && long.contains("-rrrrrrrrrrrr-"), "{long}");
    }

    #[test]
    fn hashes_as_published() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
