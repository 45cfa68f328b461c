//! The demand that a ModelServing is scaled for: all requests for its names, or its share of them.

use super::{Finding, finding::listed};
use crate::{
    domain::{ModelNames, quoted},
    intent::{Intent, SignalSource},
    observed::{
        Backend, Destination, NAMES_MAX, NameOrigin, Observed, Ownership, RoutedName, Routing, ServerBackend,
        Usage,
    },
    signals::DemandScope,
};

/// Demand that counts for one ModelServing.
#[derive(Clone, Debug)]
pub(super) struct DemandShare {
    /// Model names or ModelServers whose requests count.
    pub(super) demanded: DemandScope,
    /// Names all of whose requests come here, for what the router does not count by ModelServer; `None` if
    /// requests for one of the names also go elsewhere, or if none come here.
    pub(super) whole: Option<ModelNames>,
    /// `false` while its ModelServers have weight 0 in every route.
    pub(super) receives: bool,
    /// `true` if the router counts each request twice, since different pods do prefill and decode.
    pub(super) counts_twice: bool,
    /// Names beside the listed ones, for custom queries.
    pub(super) further: Vec<String>,
    /// ModelRoutes by which requests for its names go elsewhere, as `<namespace>/<name>`.
    pub(super) elsewhere: Vec<String>,
    /// Requests that are not counted, and why.
    pub(super) warnings: Vec<String>,
}

/// `true` if the router's requests for the model's names size or wake it; engine signals and custom queries
/// without `{{model}}` concern one ModelServing already.
pub(super) fn depends_on_names(intent: &Intent) -> bool {
    intent.replicas.min() == 0
        || intent.signals.iter().any(|signal| match &signal.source {
            SignalSource::Demand(_) => true,
            SignalSource::Saturation(_) | SignalSource::Latency(_) => false,
            SignalSource::Custom(custom) => custom.query.uses_model(),
        })
}

/// Finds the share of the demand that one ModelServing serves.
///
/// Every name that routes lead to its ModelServers counts, listed or not. If a name also leads elsewhere, the
/// model is scaled for its own share, which the router counts by ModelServer. If the shares cannot be
/// separated, none of the models is scaled: scaling each for all requests would multiply the capacity.
///
/// A route that adds a name never makes a plan invalid: such a name is left out with a warning instead.
///
/// # Errors
/// If the share of this ModelServing cannot be separated from that of others.
pub(super) fn share(intent: &Intent, routing: &Routing) -> Result<DemandShare, Finding> {
    if !depends_on_names(intent) {
        return Ok(DemandShare::of_names(intent.models.clone()));
    }
    if let Ok(share) = View::full(routing).share(intent, routing)
        && is_measurable(&share, intent)
        && !(routing.is_cut && matches!(share.demanded, DemandScope::Models(_)))
    {
        return Ok(share);
    }
    if let Some(share) = routing.is_cut.then(|| by_servers(intent, routing)).flatten() {
        return Ok(share);
    }
    View::certain(routing).share(intent, routing)
}

/// The share of a model that has a ScaledObject already, without the claims of other namespaces: their users
/// must not be able to stop it. `None` if it has no ScaledObject or its own namespace is the cause.
pub(super) fn established(observed: &Observed, intent: &Intent) -> Option<DemandShare> {
    if observed.scaled_object_ownership() != Ownership::Owned {
        return None;
    }
    let local = format!("{}/", observed.namespace());
    let mut routing = observed.routing.clone();
    let (claimants, foreign): (Vec<String>, Vec<String>) =
        routing.claimants.into_iter().partition(|name| name.starts_with(&local));
    routing.claimants = claimants;
    for destination in routing.names.iter_mut().flat_map(|name| &mut name.destinations) {
        if let Backend::Server(server) = &mut destination.backend {
            server.others.retain(|name| name.starts_with(&local));
        }
    }
    let mut share = share(intent, &routing).ok()?;
    let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
    share.warnings.push(format!(
        "the model name is also used in another namespace{}, and no ModelRoute leads it to this ModelServing, so all requests for it count; route the name to a ModelServer of this ModelServing",
        if foreign.is_empty() { String::new() } else { format!(" by {}", listed(&foreign)) }
    ));
    Some(share)
}

impl DemandShare {
    fn of_names(names: ModelNames) -> Self {
        Self {
            demanded: DemandScope::Models(names.clone()),
            whole: Some(names),
            receives: true,
            counts_twice: false,
            further: Vec::new(),
            elsewhere: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// `true` if every signal of the router can be measured, and something can wake the model.
fn is_measurable(share: &DemandShare, intent: &Intent) -> bool {
    let is_split = share.whole.is_none() && share.receives;
    let counted_by_server = intent.signals.iter().all(|signal| match &signal.source {
        SignalSource::Demand(demand) => demand.is_counted_by_server(),
        SignalSource::Saturation(_) | SignalSource::Latency(_) | SignalSource::Custom(_) => true,
    });
    !is_split || (intent.replicas.min() > 0 && counted_by_server)
}

/// The share of more names than a query can list: by the model's own ModelServers, if they serve it alone.
fn by_servers(intent: &Intent, routing: &Routing) -> Option<DemandShare> {
    let view = View::full(routing);
    let servers: Vec<(&ServerBackend, Usage)> = view.names.iter().flat_map(NameView::own).collect();
    let is_shared = servers.iter().any(|(server, _)| !server.others.is_empty());
    let share = View { warnings: vec![too_many_names("custom queries leave the others out")], ..view }
        .by_servers(&servers, None);
    (!is_shared && !servers.is_empty() && is_measurable(&share, intent)).then_some(share)
}

fn too_many_names(effect: &str) -> String {
    format!(
        "routes lead more than {NAMES_MAX} names to this ModelServing, and {effect}; route fewer names to it"
    )
}

/// Names and destinations that are taken into account.
struct View<'a> {
    names: Vec<NameView<'a>>,
    warnings: Vec<String>,
}

struct NameView<'a> {
    name: &'a RoutedName,
    elsewhere: Vec<&'a Destination>,
}

impl<'a> NameView<'a> {
    fn own(&self) -> impl Iterator<Item = (&'a ServerBackend, Usage)> + use<'a> {
        self.name.own()
    }

    fn is_of_route(&self) -> bool {
        self.name.origin == NameOrigin::Route
    }

    /// `true` if some requests come here.
    fn comes_here(&self) -> bool {
        self.own().any(|(_, usage)| usage == Usage::Receives)
    }

    /// `true` if some requests go elsewhere.
    fn goes_elsewhere(&self) -> bool {
        self.elsewhere.iter().any(|destination| destination.usage == Usage::Receives)
    }

    /// `true` if requests would come here, if the router did not use other routes, which lead elsewhere.
    fn is_displaced(&self) -> bool {
        !self.name.leads_here() && self.own().next().is_some() && self.goes_elsewhere()
    }

    fn is_shared(&self) -> bool {
        self.own().any(|(server, _)| !server.others.is_empty())
    }
}

impl<'a> View<'a> {
    /// Everything that is known.
    fn full(routing: &'a Routing) -> Self {
        let all = routing.names.iter().map(|name| NameView { name, elsewhere: name.elsewhere().collect() });
        let (names, shared): (Vec<_>, Vec<_>) =
            all.partition(|view| !view.is_of_route() || (view.comes_here() && !view.is_shared()));
        let warnings = shared.iter().filter(|view| view.is_shared()).map(left_out);
        Self { warnings: warnings.collect(), names }
    }

    /// The part that a route of another Gateway, or a route for a name that the annotation does not list,
    /// cannot make invalid.
    fn certain(routing: &'a Routing) -> Self {
        let mut view = Self::full(routing);
        for name in &mut view.names {
            name.elsewhere.retain(|destination| !destination.at_other_gateway);
        }
        let (names, split): (Vec<_>, Vec<_>) =
            view.names.into_iter().partition(|view| !view.is_of_route() || view.elsewhere.is_empty());
        view.warnings.extend(split.iter().map(left_out));
        if routing.is_cut {
            view.warnings.push(too_many_names("the requests for the others are not counted"));
        }
        Self { names, warnings: view.warnings }
    }

    fn share(self, intent: &Intent, routing: &Routing) -> Result<DemandShare, Finding> {
        let mut here: Vec<&NameView<'_>> = self.names.iter().filter(|view| view.name.leads_here()).collect();
        if here.is_empty() {
            here.extend(self.names.iter().filter(|view| view.is_displaced()));
        }
        if here.iter().all(|view| view.is_of_route()) {
            self.check_claims(routing)?;
        }
        if here.is_empty() {
            return Ok(self.by_names(intent));
        }
        let servers: Vec<(&ServerBackend, Usage)> = here.iter().flat_map(|view| view.own()).collect();
        let shared: Vec<&ServerBackend> =
            servers.iter().map(|(server, _)| *server).filter(|server| !server.others.is_empty()).collect();
        if !shared.is_empty() {
            return Err(shared_model_server(&shared));
        }
        if here.iter().all(|view| view.elsewhere.is_empty()) {
            return Ok(self.by_names(intent));
        }
        let is_split = here.iter().any(|view| view.comes_here() && view.goes_elsewhere());
        let complete = here.iter().filter(|view| view.comes_here()).map(|view| view.name.name.as_str());
        let whole = if is_split { None } else { ModelNames::of(complete) };
        Ok(self.by_servers(&servers, whole))
    }

    /// Checks that nobody else serves the names in the annotation, none of which leads here.
    fn check_claims(&self, routing: &Routing) -> Result<(), Finding> {
        let names: Vec<&NameView<'_>> = self.names.iter().filter(|view| !view.is_of_route()).collect();
        let served = names.iter().flat_map(|view| &view.elsewhere).flat_map(|found| others(found));
        let mut others: Vec<&str> = routing.claimants.iter().chain(served).map(String::as_str).collect();
        others.sort_unstable();
        others.dedup();
        if others.is_empty() {
            return Ok(());
        }
        Err(Finding::shared_model_name(
            &others,
            &routes(names.iter().flat_map(|view| &view.elsewhere).copied()),
        ))
    }

    /// The share of names all of whose requests come here, or that are not routed yet. Names whose requests
    /// all go elsewhere are left out, unless every name is such a one.
    fn by_names(self, intent: &Intent) -> DemandShare {
        let is_elsewhere = |view: &NameView<'_>| !view.name.leads_here() && !view.elsewhere.is_empty();
        let leaves_out = self.names.iter().any(|view| view.name.leads_here());
        let (gone, counted): (Vec<&NameView<'_>>, Vec<&NameView<'_>>) =
            self.names.iter().partition(|view| leaves_out && is_elsewhere(view));
        let names = ModelNames::of(counted.iter().map(|view| view.name.name.as_str()));
        let names = names.unwrap_or_else(|| intent.models.clone());
        let warnings = self.warnings.iter().cloned().chain(gone.iter().map(|view| served_elsewhere(view)));
        DemandShare { warnings: warnings.collect(), further: self.further(), ..DemandShare::of_names(names) }
    }

    fn by_servers(self, servers: &[(&ServerBackend, Usage)], whole: Option<ModelNames>) -> DemandShare {
        let mut names: Vec<String> = servers.iter().map(|(server, _)| server.name.clone()).collect();
        names.sort();
        names.dedup();
        DemandShare {
            demanded: DemandScope::Servers(names),
            whole,
            receives: servers.iter().any(|(_, usage)| *usage == Usage::Receives),
            counts_twice: servers.iter().any(|(server, _)| server.disaggregated),
            further: self.further(),
            elsewhere: self.elsewhere(),
            warnings: self.warnings,
        }
    }

    fn elsewhere(&self) -> Vec<String> {
        let here = self.names.iter().filter(|view| view.name.leads_here());
        let receiving =
            here.flat_map(|view| &view.elsewhere).copied().filter(|found| found.usage == Usage::Receives);
        routes(receiving).into_iter().map(str::to_owned).collect()
    }

    /// Adapters and other names that come here, for custom queries.
    fn further(&self) -> Vec<String> {
        let further = self.names.iter().filter(|view| match view.name.origin {
            NameOrigin::Listed => false,
            NameOrigin::Adapter => view.name.leads_here() || view.elsewhere.is_empty(),
            NameOrigin::Route => !view.goes_elsewhere(),
        });
        further.map(|view| view.name.name.clone()).collect()
    }
}

fn others(destination: &Destination) -> &[String] {
    match &destination.backend {
        Backend::Server(server) => &server.others,
        Backend::Missing(_) | Backend::Outside => &[],
    }
}

fn shared_model_server(shared: &[&ServerBackend]) -> Finding {
    let mut others: Vec<&str> = shared.iter().flat_map(|server| &server.others).map(String::as_str).collect();
    others.sort_unstable();
    others.dedup();
    let mut servers: Vec<&str> = shared.iter().map(|server| server.name.as_str()).collect();
    servers.dedup();
    Finding::shared_model_server(&servers, &others)
}

fn routes<'a>(destinations: impl Iterator<Item = &'a Destination>) -> Vec<&'a str> {
    let mut routes: Vec<&str> = destinations.map(|found| found.route.as_str()).collect();
    routes.sort_unstable();
    routes.dedup();
    routes
}

/// A name whose requests cannot be separated from those of others.
fn left_out(view: &NameView<'_>) -> String {
    let name = quoted(&view.name.name);
    let cause = if view.is_shared() {
        "which a ModelServer for several ModelServings serves".to_owned()
    } else {
        format!(
            "which also go elsewhere by the ModelRoute {}",
            listed(&routes(view.elsewhere.iter().copied()))
        )
    };
    format!(
        "requests for {name}, {cause}, are not counted; give the name ModelServers of this ModelServing alone, or set a minimum of at least 1 and use active-requests as the only signal of the router"
    )
}

fn served_elsewhere(view: &NameView<'_>) -> String {
    let (name, routes) = (quoted(&view.name.name), routes(view.elsewhere.iter().copied()));
    format!(
        "kthena-router sends all requests for {name} elsewhere, by the ModelRoute {}, so they are not counted; remove that route if they are for this ModelServing",
        listed(&routes)
    )
}
