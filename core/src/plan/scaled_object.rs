//! The ScaledObject of one ModelServing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    Finding, owner,
    triggers::{TriggerSpec, Triggers},
};
use crate::{
    api::{
        annotations::{MEASURED_SERVICE_TIME, PREFIX},
        keda::{
            Advanced, AuthenticationReference, Behavior, Fallback, HpaConfig, Rules, ScaleTargetRef,
            ScaledObject, ScaledObjectSpec, ScalingPolicy, Trigger, pause_annotation,
        },
        kthena::ModelServing,
        metadata::{MANAGED_BY, OPERATOR},
        model_serving_role::ModelServingRole,
        profile::AuthenticationRef,
    },
    domain::{Keda, Pause, ServiceTime, ServiceTimeSetting},
    intent::{Direction, Intent, Policy, PrometheusSettings},
};

/// `true` if the installed KEDA knows the annotation of this pause.
pub(super) fn supports_pause(keda: Keda, pause: Pause) -> bool {
    pause == Pause::All || keda.directional_pause
}

/// Settings that the installed KEDA does not support.
pub(super) fn unsupported_by_keda(keda: Keda, intent: &Intent) -> Vec<Finding> {
    let mut findings = Vec::new();
    if intent.pause.is_some_and(|pause| !supports_pause(keda, pause)) {
        findings.push(Finding::needs_newer_keda(
            &format!("pausing one direction with {PREFIX}paused"),
            "2.18",
            "set the annotation to true or false",
        ));
    }
    if intent.replicas.min() == 0 && !keda.initial_cooldown {
        findings.push(Finding::needs_newer_keda("a minimum of 0", "2.14", "raise the minimum to 1"));
    }
    findings
}

/// Warning about a setting that the installed KEDA does not support and that is left out.
pub(super) fn ignored_by_keda(keda: Keda, intent: &Intent) -> Option<String> {
    let is_set = intent.profile.fallback.is_some() && intent.replicas.min() > 0;
    (is_set && !keda.fallback_behavior).then(|| {
        "the profile's fallback requires KEDA 2.17 or later, so it is left out; upgrade KEDA".to_owned()
    })
}

/// Complete object; `None` without a Prometheus address.
pub(super) fn build(
    model_serving: &ModelServing,
    target: ScaleTargetRef,
    intent: &Intent,
    Triggers { triggers, service_time, .. }: &Triggers,
    keda: Keda,
) -> Option<Box<ScaledObject>> {
    let prometheus = intent.profile.prometheus.as_ref()?;
    Some(Box::new(ScaledObject {
        metadata: metadata(model_serving, &target, intent.pause, measured(intent, *service_time)),
        spec: ScaledObjectSpec {
            scale_target_ref: target,
            polling_interval: Some(intent.profile.polling_interval),
            // KEDA warns at each write of one that it does not use (`apis/keda/v1alpha1/scaledobject_webhook.go`). It
            // also warns of `pollingInterval`, by which it still refreshes its conditions, so that one stays.
            cooldown_period: (intent.replicas.min() == 0).then_some(intent.profile.cooldown),
            initial_cooldown_period: keda.initial_cooldown.then_some(intent.profile.initial_cooldown),
            min_replica_count: Some(intent.replicas.min()),
            max_replica_count: Some(intent.replicas.max()),
            fallback: fallback(intent, keda),
            advanced: Some(behavior(intent)),
            triggers: triggers.iter().map(|spec| trigger(spec, prometheus)).collect(),
        },
    }))
}

/// The service time in force, if the operator measured it.
fn measured(intent: &Intent, in_force: Option<ServiceTime>) -> Option<ServiceTime> {
    in_force.filter(|_| intent.backlog.service_time == ServiceTimeSetting::Auto)
}

/// The ServingGroups of a ModelServing as a scale target.
pub(super) fn model_serving(model_serving: &ModelServing) -> ScaleTargetRef {
    ScaleTargetRef {
        api_version: ModelServing::API_VERSION.to_owned(),
        kind: ModelServing::KIND.to_owned(),
        name: model_serving.name().to_owned(),
    }
}

/// The scale target of a role has the name of its ScaledObject.
fn metadata(
    model_serving: &ModelServing,
    target: &ScaleTargetRef,
    pause: Option<Pause>,
    measured: Option<ServiceTime>,
) -> ObjectMeta {
    let is_role = target.kind == ModelServingRole::KIND;
    let name = if is_role { target.name.clone() } else { model_serving.scaled_object_name() };
    let pause = pause.map(|pause| (pause_annotation(pause).to_owned(), "true".to_owned()));
    let measured = measured.map(|time| (MEASURED_SERVICE_TIME.to_owned(), time.to_string()));
    let annotations: BTreeMap<String, String> = pause.into_iter().chain(measured).collect();
    ObjectMeta {
        name: Some(name),
        namespace: model_serving.metadata.namespace.clone(),
        labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), OPERATOR.to_owned())])),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        owner_references: owner(model_serving).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// No fallback with a minimum of 0: KEDA counts a fallback as activity (2.19 on) and would wake every model
/// at zero when Prometheus is down.
///
/// None during a pause of all scaling either, which has no HPA that could use it. With one, KEDA first sets its
/// condition `Fallback` after the resume, from a copy of all conditions that may still be paused
/// (`pkg/fallback/fallback.go`), and so reports a pause that is over: <https://github.com/kedacore/keda/issues/6421>.
fn fallback(intent: &Intent, keda: Keda) -> Option<Fallback> {
    let is_usable = intent.replicas.min() > 0 && intent.pause != Some(Pause::All) && keda.fallback_behavior;
    intent.profile.fallback.clone().filter(|_| is_usable)
}

fn behavior(intent: &Intent) -> Advanced {
    let behavior = &intent.profile.behavior;
    Advanced {
        horizontal_pod_autoscaler_config: Some(HpaConfig {
            behavior: Some(Behavior {
                scale_up: Some(rules(&behavior.scale_up)),
                scale_down: Some(rules(&behavior.scale_down)),
            }),
        }),
    }
}

fn rules(direction: &Direction) -> Rules {
    Rules {
        stabilization_window_seconds: Some(direction.stabilization_window),
        select_policy: Some(<&str>::from(direction.select).to_owned()),
        policies: direction.policies.iter().map(policy).collect(),
    }
}

fn policy(policy: &Policy) -> ScalingPolicy {
    ScalingPolicy {
        kind: <&str>::from(policy.kind).to_owned(),
        value: policy.value,
        period_seconds: policy.period,
    }
}

fn trigger(spec: &TriggerSpec, prometheus: &PrometheusSettings) -> Trigger {
    let settings = [
        ("serverAddress", prometheus.url.to_string()),
        ("query", spec.query.clone()),
        ("threshold", spec.threshold.clone()),
        // KEDA's default turns "no data" into 0 and so scales down when Prometheus loses its data.
        ("ignoreNullValues", "false".to_owned()),
    ];
    let activation = spec.activation.clone().map(|activation| ("activationThreshold", activation));
    let metadata = settings
        .into_iter()
        .chain(activation)
        .chain(authentication(prometheus))
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Trigger {
        kind: "prometheus".to_owned(),
        name: Some(spec.name.clone()),
        metric_type: Some(spec.metric_type),
        metadata,
        authentication_ref: prometheus.authentication.as_ref().map(authentication_ref),
    }
}

/// Trigger settings of KEDA's connection to Prometheus.
///
/// KEDA ignores credentials without the modes (`pkg/scalers/authentication`), and reads lists as `a,b` and
/// maps as `k=v,k2=v2`.
fn authentication(prometheus: &PrometheusSettings) -> impl Iterator<Item = (&'static str, String)> {
    let modes: Vec<&str> = prometheus.modes.iter().map(Into::into).collect();
    let headers: Vec<String> =
        prometheus.headers.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let unsafe_ssl = if prometheus.unsafe_ssl { "true" } else { "" };
    let parameters: Vec<String> =
        prometheus.query_parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
    // A number is milliseconds (`pkg/scalers/scalersconfig/typed_config.go`).
    let timeout = prometheus.timeout.map(|seconds| (i64::from(seconds) * 1000).to_string());
    [
        ("awsRegion", prometheus.aws_region.clone().unwrap_or_default()),
        ("queryParameters", parameters.join(",")),
        ("timeout", timeout.unwrap_or_default()),
        ("authModes", modes.join(",")),
        ("customHeaders", headers.join(",")),
        ("unsafeSsl", unsafe_ssl.to_owned()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
}

fn authentication_ref(reference: &AuthenticationRef) -> AuthenticationReference {
    AuthenticationReference { kind: <&str>::from(reference.kind).to_owned(), name: reference.name.clone() }
}
