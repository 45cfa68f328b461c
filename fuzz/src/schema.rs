//! Validation of custom objects like the API server's, from the CRDs of the components' releases.

use std::{fs, path::Path, sync::LazyLock};

use jsonschema::Validator;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kthena_keda_core::domain::{Label, Namespace, ObjectName};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// ScaledObject of KEDA's newest release.
pub static SCALED_OBJECT: LazyLock<Schema> =
    LazyLock::new(|| Schema::read("keda/crds/keda.sh_scaledobjects.yaml"));
/// ScaledObject of KEDA's oldest supported release.
pub static OLD_SCALED_OBJECT: LazyLock<Schema> =
    LazyLock::new(|| Schema::read("keda-2.14/crds/keda.sh_scaledobjects.yaml"));
/// The Prometheus Operator's PodMonitor.
pub static POD_MONITOR: LazyLock<Schema> =
    LazyLock::new(|| Schema::read("prometheus-operator/crds/monitoring.coreos.com_podmonitors.yaml"));
/// The Prometheus Operator's ServiceMonitor.
pub static SERVICE_MONITOR: LazyLock<Schema> =
    LazyLock::new(|| Schema::read("prometheus-operator/crds/monitoring.coreos.com_servicemonitors.yaml"));

/// Schema of the first version of a kind.
pub struct Schema(Validator);

impl Schema {
    fn read(file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stack/manifests").join(file);
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run `make stack`", path.display()));
        let crd: Value = serde_saphyr::from_str(&text).expect("YAML");
        let mut schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").expect("a schema").clone();
        translate(&mut schema, true);
        schema["properties"]["metadata"] = json!(true);
        Self(jsonschema::draft7::new(&schema).expect("a JSON schema"))
    }

    /// Panics if the API server would reject an object or drop one of its fields.
    pub fn check(&self, object: &Value) {
        let errors: Vec<String> =
            self.0.iter_errors(object).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:?} of {object}");
        check_metadata(&object["metadata"]);
    }
}

/// Converts a structural schema to a JSON schema. `is_complete` is false within `allOf`, `anyOf`, `oneOf` and
/// `not`, which list only some fields of an object.
fn translate(schema: &mut Value, is_complete: bool) {
    let Some(fields) = schema.as_object_mut() else { return };
    let has = |name: &str| fields.get(name).and_then(Value::as_bool) == Some(true);
    let (any, is_either, is_nullable) =
        (has("x-kubernetes-preserve-unknown-fields"), has("x-kubernetes-int-or-string"), has("nullable"));
    let kind = fields.get("type").and_then(Value::as_str).map(str::to_owned);
    if is_either {
        fields.remove("anyOf");
        fields.insert("type".to_owned(), json!(["integer", "string"]));
    } else if let (Some(kind), true) = (&kind, is_nullable) {
        fields.insert("type".to_owned(), json!([kind, "null"]));
    }
    let bounds = match fields.remove("format").as_ref().and_then(Value::as_str) {
        Some("int32") => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        Some("int64") => Some((i64::MIN, i64::MAX)),
        _ => None,
    };
    if let Some((least, most)) = bounds {
        fields.entry("minimum").or_insert(json!(least));
        fields.entry("maximum").or_insert(json!(most));
    }
    if kind.as_deref() == Some("object")
        && is_complete
        && !any
        && !fields.contains_key("additionalProperties")
    {
        fields.insert("additionalProperties".to_owned(), json!(false));
    }
    if fields.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("set") {
        fields.insert("uniqueItems".to_owned(), json!(true));
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            translate(property, is_complete);
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            translate(inner, is_complete);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        if let Some(all) = fields.get_mut(name).and_then(Value::as_array_mut) {
            for inner in all {
                translate(inner, false);
            }
        }
    }
    if let Some(inner) = fields.get_mut("not") {
        translate(inner, false);
    }
}

/// Checks the metadata rules of all kinds (Kubernetes `apimachinery/pkg/api/validation/objectmeta.go`).
fn check_metadata(metadata: &Value) {
    let read = ObjectMeta::deserialize(metadata).unwrap_or_else(|error| panic!("{error}: {metadata}"));
    let name = read.name.expect("a name");
    assert!(name.parse::<ObjectName>().is_ok(), "invalid name {name:?}");
    assert!(
        read.namespace.is_some_and(|namespace| namespace.parse::<Namespace>().is_ok()),
        "invalid namespace: {metadata}"
    );
    for (key, value) in read.labels.iter().flatten() {
        assert!(Label::new(key, value).is_ok(), "invalid label {key}={value:?}");
    }
    for key in read.annotations.iter().flatten().map(|(key, _)| key) {
        assert!(Label::new(&key.to_lowercase(), "").is_ok(), "invalid annotation {key}");
    }
    for owner in read.owner_references.iter().flatten() {
        assert!(
            ![&owner.api_version, &owner.kind, &owner.name, &owner.uid].iter().any(|text| text.is_empty()),
            "invalid owner reference: {metadata}"
        );
    }
}
