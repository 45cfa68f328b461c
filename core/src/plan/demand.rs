//! The demand that a ModelServing is scaled for: all requests for its names, or its share of them.

use super::Finding;
use crate::{
    domain::ModelNames,
    observed::{Destination, Routing},
    signals::DemandScope,
};

/// Demand that counts for one ModelServing.
#[derive(Clone, Debug)]
pub(super) struct DemandShare {
    /// Model names or ModelServers whose requests count.
    pub(super) demanded: DemandScope,
    /// `true` if the router counts each request twice, since different pods do prefill and decode.
    pub(super) counts_twice: bool,
}

/// Finds the share of the demand that one ModelServing serves.
///
/// If several ModelServings serve a name, each is scaled for its own share, which the router counts by
/// ModelServer. If the shares cannot be separated, none of them is scaled: scaling each for all requests
/// would multiply the capacity.
///
/// # Errors
/// If the share of this ModelServing cannot be separated from that of others.
pub(super) fn share(names: &ModelNames, routing: &Routing) -> Result<DemandShare, Finding> {
    let own: Vec<OwnServer<'_>> = routing.destinations.iter().filter_map(own_server).collect();
    if own.is_empty() {
        return match others(routing) {
            others if others.is_empty() => Ok(whole(names, routing)),
            others => Err(Finding::shared_model_name(&others)),
        };
    }
    if own.len() == routing.destinations.len() && own.iter().all(|server| server.others.is_empty()) {
        return Ok(whole(names, routing));
    }
    let mut others: Vec<&str> = own.iter().flat_map(|server| server.others).map(String::as_str).collect();
    if !others.is_empty() {
        others.dedup();
        return Err(Finding::shared_model_server(
            own.iter().filter(|server| !server.others.is_empty()).map(|server| server.name),
            &others,
        ));
    }
    let servers = own.iter().map(|server| server.name.to_owned()).collect();
    Ok(DemandShare {
        demanded: DemandScope::Servers(servers),
        counts_twice: own.iter().any(|server| server.disaggregated),
    })
}

fn whole(names: &ModelNames, routing: &Routing) -> DemandShare {
    DemandShare {
        demanded: DemandScope::Models(names.with(routing.adapters.iter().map(String::as_str))),
        counts_twice: false,
    }
}

/// A ModelServer that routes requests to the ModelServing.
struct OwnServer<'a> {
    name: &'a str,
    disaggregated: bool,
    others: &'a [String],
}

fn own_server(destination: &Destination) -> Option<OwnServer<'_>> {
    match destination {
        Destination::Server { name, is_own: true, disaggregated, others } => {
            Some(OwnServer { name, disaggregated: *disaggregated, others })
        }
        Destination::Server { is_own: false, .. } | Destination::Outside => None,
    }
}

/// Other ModelServings that serve the names, or opted in with them.
fn others(routing: &Routing) -> Vec<&str> {
    let served = routing.destinations.iter().flat_map(|destination| match destination {
        Destination::Server { others, .. } => others.as_slice(),
        Destination::Outside => &[],
    });
    let mut others: Vec<&str> = routing.claimants.iter().chain(served).map(String::as_str).collect();
    others.sort_unstable();
    others.dedup();
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn server(name: &str, is_own: bool, others: &[&str]) -> Destination {
        let others = others.iter().map(|other| (*other).to_owned()).collect();
        Destination::Server { name: name.to_owned(), is_own, disaggregated: name.ends_with("pd"), others }
    }

    fn shared(destinations: &[Destination], claimants: &[&str]) -> String {
        let claimants = claimants.iter().map(|name| (*name).to_owned()).collect();
        let routing = Routing {
            adapters: vec!["lora".to_owned()],
            destinations: destinations.to_vec(),
            claimants,
            ..Routing::default()
        };
        match share(&"m".parse().unwrap(), &routing) {
            Ok(DemandShare { demanded: DemandScope::Models(names), .. }) => {
                format!("models {}", names.iter().collect::<Vec<_>>().join(","))
            }
            Ok(DemandShare { demanded: DemandScope::Servers(servers), counts_twice }) => {
                format!("servers {}{}", servers.join(","), if counts_twice { " twice" } else { "" })
            }
            Err(finding) => format!("{} {}", finding.reason.as_str(), finding.message),
        }
    }

    #[rstest]
    #[case::no_routes(&[], &[], "models m,lora")]
    #[case::its_own(&[server("n/a", true, &[])], &[], "models m,lora")]
    #[case::claimed_and_not_routed_there(&[server("n/a", true, &[])], &["n/other"], "models m,lora")]
    #[case::two_of_its_own(&[server("n/a", true, &[]), server("n/b", true, &[])], &[], "models m,lora")]
    #[case::weighted(&[server("n/a", true, &[]), server("n/b", false, &["n/other"])], &["n/other"], "servers n/a")]
    #[case::another_namespace(&[server("n/a", true, &[]), server("o/a", false, &["o/chat"])], &[], "servers n/a")]
    #[case::a_provider(&[server("n/a", true, &[]), Destination::Outside], &[], "servers n/a")]
    #[case::disaggregated(&[server("n/pd", true, &[]), server("n/b", false, &[])], &[], "servers n/pd twice")]
    #[case::not_routed_to_it(&[server("n/b", false, &[])], &[], "models m,lora")]
    fn counts_models_or_servers(
        #[case] destinations: &[Destination],
        #[case] claimants: &[&str],
        #[case] expected: &str,
    ) {
        assert_eq!(shared(destinations, claimants), expected);
    }

    #[rstest]
    #[case::claimed(&[], &["n/other"], "SharedModelName", "n/other")]
    #[case::routed_elsewhere(&[server("n/b", false, &["n/other"])], &[], "SharedModelName", "n/other")]
    #[case::one_server_for_both(&[server("n/a", true, &["n/other"])], &[], "SharedModelName", "n/a")]
    fn refuses_demand_that_cannot_be_separated(
        #[case] destinations: &[Destination],
        #[case] claimants: &[&str],
        #[case] reason: &str,
        #[case] names: &str,
    ) {
        let refused = shared(destinations, claimants);
        assert!(refused.starts_with(reason) && refused.contains(names), "{refused}");
    }
}
