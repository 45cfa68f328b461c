//! The one place where an [`Observed`] is put together, from whatever source.
//!
//! In: a ModelServing, or the namespace of the router. Out: everything that its plan depends on, as it is cached now.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Service, jiff::Timestamp};
use kube::ResourceExt as _;

use super::{
    Caches, index_keys,
    kinds::{Stores, WatchedKind as _},
    related::borrowed,
};
use crate::{cluster::discovery::ServedApis, runtime::delays::KEDA_REPORT};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{
        Key, key,
        names::{ROUTER_SERVICE_MONITOR, hpa, role as role_name},
    },
    observed::{
        Autoscalers, CompetingAutoscaler, LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer,
        LivePodMonitor, LivePolicy, LiveProfile, LiveRole, LiveScaledObject, LiveServiceMonitor, LiveStandIn,
        LiveStandInService, LocatedRouter, Observed, ObservedRole, ObservedRouter, ObservedStandIn,
        Readability, ScrapeEvidence, ShadowState, UnreadKind, WaitingPods,
    },
};

impl Caches {
    /// Everything that a plan for a ModelServing depends on, from what is cached now.
    pub fn observe(
        &self,
        model_serving: &ModelServing,
        served: &ServedApis,
        router: LocatedRouter,
    ) -> Observed {
        let (namespace, stores) = (model_serving.namespace().unwrap_or_default(), &self.stores);
        let pod_monitor = stores.pod_monitors.get(&namespace, &model_serving.pod_monitor_name());
        let scaled_object = stores.scaled_objects.get(&namespace, &model_serving.scaled_object_name());
        let silence = scaled_object.as_ref().and_then(|found| found.silence(Timestamp::now()));
        Observed {
            keda_is_silent: silence.is_some_and(|silence| silence >= KEDA_REPORT),
            scaled_object,
            hpa: stores.hpas.get(&namespace, &model_serving.hpa_name()),
            competing_autoscalers: self
                .autoscalers_of(model_serving, |all| all.competing_with(model_serving)),
            role_autoscalers: self.autoscalers_of(model_serving, |all| all.scaling_roles_of(model_serving)),
            roles: self.roles_of(model_serving),
            pod_monitor: pod_monitor.map(|digest| digest.owned),
            routing: self.routing(model_serving, served),
            profile: stores.profiles.get("", model_serving.profile()).map(|digest| digest.settings),
            waiting: self.waiting(model_serving),
            measured: self.probe_cache.measured(&key(model_serving)),
            shadow: self.shadow(model_serving),
            stand_in: self.stand_in(model_serving),
            mismatch: self.probe_cache.mismatch(&(namespace, model_serving.name_any())),
            probes: self.probe_cache.last(),
            readable: self.readability(model_serving, served),
            ..Observed::of(model_serving.clone(), router)
        }
    }

    /// The cause for which ServingGroups of a model do not become ready; `None` once they are, although the next check is due later.
    fn waiting(&self, model_serving: &ModelServing) -> Option<WaitingPods> {
        self.probe_cache.waiting_of(&key(model_serving)).filter(|_| model_serving.lags())
    }

    /// The stand-in of a model, without what only the controller knows.
    fn stand_in(&self, model_serving: &ModelServing) -> ObservedStandIn {
        let (namespace, name) =
            (model_serving.namespace().unwrap_or_default(), model_serving.stand_in_name());
        let pod = self.stores.stand_ins.get(&namespace, &name);
        let time_to_go = pod.as_ref().and_then(|pod| pod.time_to_go(Timestamp::now()));
        ObservedStandIn {
            is_over: time_to_go.is_some_and(|left| left.is_zero()),
            pod,
            service: self.stores.stand_in_services.get(&namespace, &name).map(|found| found.0),
            ..ObservedStandIn::default()
        }
    }

    /// State of the dry run of a model. What its condition says counts until this process has looked at it, so that a restart writes
    /// nothing.
    fn shadow(&self, model_serving: &ModelServing) -> ShadowState {
        if !model_serving.is_in_shadow() {
            return ShadowState::default();
        }
        let known = self.shadows.state(&key(model_serving));
        known.or_else(|| ShadowState::reported(model_serving)).unwrap_or_default()
    }

    fn readability(&self, model_serving: &ModelServing, served: &ServedApis) -> Readability {
        let namespace = model_serving.namespace().unwrap_or_default();
        let (stores, local) = (&self.stores, Some(namespace.as_str()));
        Readability {
            profiles: LiveProfile::readable(stores, served, None),
            scaled_objects: LiveScaledObject::readable(stores, served, local),
            routes: LiveModelRoute::readable(stores, served, local),
            servers: LiveModelServer::readable(stores, served, local),
            hpas: LiveHpa::readable(stores, served, local),
            policies: LivePolicy::readable(stores, served, local),
            bindings: LiveBinding::readable(stores, served, local),
            pod_monitors: LivePodMonitor::readable(stores, served, local),
            stand_ins: LiveStandIn::readable(stores, served, local),
            stand_in_services: LiveStandInService::readable(stores, served, local),
            roles: LiveRole::readable(stores, served, local),
        }
    }

    /// The roles that are scaled, or were: those that a scale target names, and all roles of a model that asks for it.
    fn roles_of(&self, model_serving: &ModelServing) -> Vec<ObservedRole> {
        let namespace = model_serving.namespace().unwrap_or_default();
        let target = [index_keys::model_serving(&namespace, model_serving.name())];
        let found = self.stores.roles.matching(&target, &[]);
        let mut names: BTreeMap<String, String> =
            found.iter().map(|(key, digest)| (key.1.clone(), digest.role.clone())).collect();
        if self.asks_for_roles(model_serving) {
            let roles = model_serving.spec.template.roles.iter();
            names.extend(roles.map(|role| (role_name(model_serving.name(), &role.name), role.name.clone())));
        }
        names.into_iter().map(|(object, role)| self.observe_role(&namespace, role, object)).collect()
    }

    fn asks_for_roles(&self, model_serving: &ModelServing) -> bool {
        let profile = || self.stores.profiles.get("", model_serving.profile());
        model_serving.has_roles_annotation()
            || (model_serving.is_opted_in()
                && profile().is_some_and(|found| found.settings.is_ok_and(|profile| profile.roles.is_some())))
    }

    fn observe_role(&self, namespace: &str, name: String, object_name: String) -> ObservedRole {
        let Stores { roles, scaled_objects, hpas, .. } = &self.stores;
        let scaled_object = scaled_objects.get(namespace, &object_name);
        let silence = scaled_object.as_ref().and_then(|found| found.silence(Timestamp::now()));
        ObservedRole {
            name,
            object: roles.get(namespace, &object_name),
            hpa: hpas.get(namespace, &hpa(&object_name)),
            keda_is_silent: silence.is_some_and(|silence| silence >= KEDA_REPORT),
            scaled_object,
            object_name,
        }
    }

    fn autoscalers_of(
        &self,
        model_serving: &ModelServing,
        read: impl FnOnce(&Autoscalers<'_>) -> Vec<CompetingAutoscaler>,
    ) -> Vec<CompetingAutoscaler> {
        let namespace = model_serving.namespace().unwrap_or_default();
        let target = [index_keys::model_serving(&namespace, &model_serving.name_any())];
        let Stores { scaled_objects, hpas, policies, bindings, .. } = &self.stores;
        let (scaled_objects, hpas) = (scaled_objects.matching(&target, &[]), hpas.matching(&target, &[]));
        let bindings = bindings.matching(&target, &[]);
        let of_bindings: Vec<Key> =
            bindings.iter().filter_map(|(_, binding)| binding.policy()).cloned().collect();
        let policies = policies.matching(&target, &of_bindings);
        let all = Autoscalers {
            scaled_objects: &borrowed(&scaled_objects),
            hpas: &borrowed(&hpas),
            policies: &borrowed(&policies),
            bindings: &borrowed(&bindings),
        };
        read(&all)
    }

    /// Everything that the plan for the router's ServiceMonitor depends on; `None` before the initial lists are complete.
    pub fn observe_synced_router(&self, namespace: &str, served: &ServedApis) -> Option<ObservedRouter> {
        let has_synced = served.is_confirmed
            && (self.stores.opt_ins.is_disabled() || ModelServing::has_synced(&self.stores, served))
            && Service::has_synced(&self.stores, served)
            && LiveProfile::has_synced(&self.stores, served)
            && LiveServiceMonitor::has_synced(&self.stores, served)
            && LivePodMonitor::has_synced(&self.stores, served);
        has_synced.then(|| ObservedRouter {
            unread: self.unread_by_router(namespace, served),
            ..self.observe_router(namespace)
        })
    }

    /// Monitors of other namespaces only show that the router is scraped already: one namespace that cannot be read does not keep its
    /// ServiceMonitor from being maintained.
    fn unread_by_router(&self, namespace: &str, served: &ServedApis) -> Vec<UnreadKind> {
        let local = Some(namespace);
        let unread = [
            UnreadKind::of::<Service>(Service::readable(&self.stores, served, None)),
            UnreadKind::of::<LiveProfile>(LiveProfile::readable(&self.stores, served, None)),
            UnreadKind::of::<LiveServiceMonitor>(LiveServiceMonitor::readable(&self.stores, served, local)),
            UnreadKind::of::<LivePodMonitor>(LivePodMonitor::readable(&self.stores, served, local)),
            UnreadKind::of::<ModelServing>(ModelServing::readable(&self.stores, served, None)),
        ];
        unread.into_iter().flatten().collect()
    }

    /// Everything that the plan for the router's ServiceMonitor depends on, from what is cached now.
    pub fn observe_router(&self, namespace: &str) -> ObservedRouter {
        let Stores { services, service_monitors, pod_monitors, .. } = &self.stores;
        let services = services.all().into_iter().filter(|((of, _), _)| of == namespace);
        ObservedRouter {
            namespace: namespace.to_owned(),
            services: services.map(|(_, service)| service).collect(),
            service_monitor: service_monitors.get(namespace, ROUTER_SERVICE_MONITOR),
            service_monitors: service_monitors.all(),
            pod_monitors: pod_monitors.all(),
            evidence: ScrapeEvidence::Awaited,
            unread: Vec::new(),
        }
    }
}
