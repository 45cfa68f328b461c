//! What the API server accepts of a custom object, by the definition that the neighbours ship.

use std::{fs, path::Path, sync::LazyLock};

use jsonschema::Validator;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kthena_keda_core::domain::{Label, Namespace, ObjectName};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// KEDA's, of the newest release and of the oldest that is supported.
pub static SCALED_OBJECT: LazyLock<Schema> =
    LazyLock::new(|| Schema::read("keda/crds/keda.sh_scaledobjects.yaml"));
pub static OLD_SCALED_OBJECT: LazyLock<Schema> =
    LazyLock::new(|| Schema::read("keda-2.14/crds/keda.sh_scaledobjects.yaml"));
/// The Prometheus Operator's.
pub static POD_MONITOR: LazyLock<Schema> =
    LazyLock::new(|| Schema::read("prometheus-operator/crds/monitoring.coreos.com_podmonitors.yaml"));
pub static ROUTER_SERVICE_MONITOR: LazyLock<Schema> =
    LazyLock::new(|| Schema::read("prometheus-operator/crds/monitoring.coreos.com_servicemonitors.yaml"));

/// The schema of a kind's first version.
pub struct Schema(Validator);

impl Schema {
    fn read(file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stack/manifests").join(file);
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run `make stack`", path.display()));
        let definition: Value = serde_saphyr::from_str(&text).expect("YAML");
        let mut schema =
            definition.pointer("/spec/versions/0/schema/openAPIV3Schema").expect("a schema").clone();
        translate(&mut schema, true);
        schema["properties"]["metadata"] = json!(true);
        Self(jsonschema::draft7::new(&schema).expect("a JSON schema"))
    }

    /// Panics where the API server would refuse an object, or would drop a field of it.
    pub fn check(&self, object: &Value) {
        let wrong: Vec<String> =
            self.0.iter_errors(object).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{wrong:?} of {object}");
        check_metadata(&object["metadata"]);
    }
}

/// A structural schema as a JSON schema. `is_whole` is false within a junctor, which speaks of some fields of an object and not of all.
fn translate(schema: &mut Value, is_whole: bool) {
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
    if kind.as_deref() == Some("object") && is_whole && !any && !fields.contains_key("additionalProperties") {
        fields.insert("additionalProperties".to_owned(), json!(false));
    }
    if fields.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("set") {
        fields.insert("uniqueItems".to_owned(), json!(true));
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            translate(property, is_whole);
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            translate(inner, is_whole);
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

/// The rules that hold for every kind (Kubernetes `apimachinery/pkg/api/validation/objectmeta.go`).
fn check_metadata(metadata: &Value) {
    let read = ObjectMeta::deserialize(metadata).unwrap_or_else(|error| panic!("{error}: {metadata}"));
    let name = read.name.expect("a name");
    assert!(name.parse::<ObjectName>().is_ok(), "the name {name:?}");
    assert!(
        read.namespace.is_some_and(|namespace| namespace.parse::<Namespace>().is_ok()),
        "the namespace: {metadata}"
    );
    for (key, value) in read.labels.iter().flatten() {
        assert!(Label::new(key, value).is_ok(), "the label {key}={value:?}");
    }
    for key in read.annotations.iter().flatten().map(|(key, _)| key) {
        assert!(Label::new(&key.to_lowercase(), "").is_ok(), "the annotation {key}");
    }
    for owner in read.owner_references.iter().flatten() {
        assert!(
            ![&owner.api_version, &owner.kind, &owner.name, &owner.uid].iter().any(|text| text.is_empty()),
            "an owner: {metadata}"
        );
    }
}
