//! The names of what is generated for a ModelServing.

use crate::api::kthena::ModelServing;

/// KEDA names its HPA `keda-hpa-<name>` and allows that 63 bytes.
const MAX: usize = 54;

/// The ModelServing's own name, or, where that is too long for KEDA, its start and a stable hash.
pub fn scaled_object_name(model_serving: &ModelServing) -> String {
    of_scaled_object(model_serving.metadata.name.as_deref().unwrap_or_default())
}

fn of_scaled_object(name: &str) -> String {
    if name.len() <= MAX {
        return name.to_owned();
    }
    let suffix = format!("{:016x}", fnv1a(name.as_bytes()));
    let room = MAX - suffix.len() - 1;
    let start = name.get(..room).unwrap_or_default().trim_end_matches(['-', '.']);
    format!("{start}-{suffix}")
}

/// The name of the HPA that KEDA makes for the ScaledObject (KEDA `controllers/keda/hpa.go`).
pub fn hpa_name(model_serving: &ModelServing) -> String {
    of_hpa(&scaled_object_name(model_serving))
}

fn of_hpa(scaled_object: &str) -> String {
    format!("keda-hpa-{scaled_object}")
}

/// The name of the PodMonitor; not the model's own, which users take for monitors of theirs.
pub fn pod_monitor_name(model_serving: &ModelServing) -> String {
    of_pod_monitor(&scaled_object_name(model_serving))
}

fn of_pod_monitor(scaled_object: &str) -> String {
    format!("kthena-keda-{scaled_object}")
}

/// All of them, for a ModelServing of this name.
pub fn generated_names(name: &str) -> [String; 3] {
    let scaled_object = of_scaled_object(name);
    [of_hpa(&scaled_object), of_pod_monitor(&scaled_object), scaled_object]
}

/// FNV-1a, 64 bits: the same in every release of this program, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> String {
        let mut model_serving = ModelServing::default();
        model_serving.metadata.name = Some(name.to_owned());
        scaled_object_name(&model_serving)
    }

    #[test]
    fn short_names_stay() {
        assert_eq!(named(&"a".repeat(54)), "a".repeat(54));
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (a, b) = (named(&format!("{}a", "x".repeat(60))), named(&format!("{}b", "x".repeat(60))));
        assert_eq!((a.len(), b.len()), (54, 54));
        assert_ne!(a, b);
        assert!(a.starts_with(&"x".repeat(37)), "{a}");
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
