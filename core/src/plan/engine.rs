//! Engine and port of a model's pods: from annotations, then from the ModelServers that select the pods, then
//! the engine's default port.

use super::finding::listed;
use crate::{
    intent::{AnnotationError, Intent},
    observed::Routing,
    signals::Engine,
};

/// Scrape target in a model's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engines {
    /// Inference engine, which determines the names of the series.
    pub engine: Engine,
    /// Port of the engine's metrics.
    pub port: u16,
}

/// Resolves engine and port; the spec of a ModelServing has neither.
///
/// # Errors
/// If neither an annotation nor a ModelServer names the engine, or if ModelServers disagree.
pub(super) fn engines(intent: &Intent, routing: &Routing) -> Result<Engines, AnnotationError> {
    let engine = match intent.engine {
        Some(engine) => engine,
        None => agreed(routing, "engine", routing.servers.iter().map(|server| server.engine))?
            .ok_or_else(|| unknown(routing))?,
    };
    let port = match intent.engine_port {
        Some(port) => port,
        None => agreed(routing, "engine-port", routing.servers.iter().map(|server| server.port))?
            .unwrap_or(engine.default_port()),
    };
    Ok(Engines { engine, port })
}

/// The value that all ModelServers with a value have in common.
fn agreed<T: PartialEq>(
    routing: &Routing,
    key: &str,
    values: impl Iterator<Item = Option<T>>,
) -> Result<Option<T>, AnnotationError> {
    let mut values = values.flatten();
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        let servers: Vec<&str> = routing.servers.iter().map(|server| server.name.as_str()).collect();
        return Err(AnnotationError::of(
            key,
            format!(
                "missing, and the ModelServers {} have different values; set the annotation",
                listed(&servers)
            ),
        ));
    }
    Ok(first)
}

fn unknown(routing: &Routing) -> AnnotationError {
    let cause = match routing.servers.as_slice() {
        [] => "no ModelServer selects this ModelServing's pods".to_owned(),
        [server, ..] => format!("the ModelServer {} names no known engine", server.name),
    };
    AnnotationError::of(
        "engine",
        format!("missing, and {cause}, so the names of its metrics are unknown; set it to vllm or sglang"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{intent::Profile, observed::Server};
    use rstest::rstest;

    fn server(engine: Option<Engine>, port: Option<u16>) -> Server {
        Server {
            name: "s".to_owned(),
            engine,
            port,
            model: None,
            labels: BTreeMap::new(),
            disaggregated: false,
            is_tls: false,
        }
    }

    fn resolved(
        engine: Option<Engine>,
        engine_port: Option<u16>,
        servers: Vec<Server>,
    ) -> Result<(Engine, u16), String> {
        let profile = Profile::built_in();
        let annotations = [("kthena.io/model-name".to_owned(), "m".to_owned())].into();
        let annotations = crate::intent::Annotations::parse(&annotations, None).unwrap().unwrap();
        let intent = Intent { engine, engine_port, ..crate::intent::merge(annotations, &profile).unwrap() };
        let resolved = engines(&intent, &Routing { servers, ..Routing::default() });
        resolved.map(|engines| (engines.engine, engines.port)).map_err(|error| error.to_string())
    }

    const VLLM: Option<Engine> = Some(Engine::Vllm);
    const SGLANG: Option<Engine> = Some(Engine::Sglang);

    #[rstest]
    #[case(VLLM, None, vec![], (Engine::Vllm, 8000))]
    #[case(SGLANG, None, vec![], (Engine::Sglang, 30000))]
    #[case(SGLANG, Some(9), vec![server(VLLM, Some(8080))], (Engine::Sglang, 9))]
    #[case(None, None, vec![server(VLLM, Some(8080))], (Engine::Vllm, 8080))]
    #[case(None, None, vec![server(SGLANG, None)], (Engine::Sglang, 30000))]
    #[case(None, None, vec![server(VLLM, Some(1)), server(VLLM, Some(1)), server(None, None)], (Engine::Vllm, 1))]
    fn prefers_annotation_then_model_server_then_default_port(
        #[case] engine: Option<Engine>,
        #[case] port: Option<u16>,
        #[case] servers: Vec<Server>,
        #[case] expected: (Engine, u16),
    ) {
        assert_eq!(resolved(engine, port, servers), Ok(expected));
    }

    #[rstest]
    #[case(vec![], "no ModelServer selects")]
    #[case(vec![server(None, Some(1))], "names no known engine")]
    #[case(vec![server(VLLM, None), server(SGLANG, None)], "have different values")]
    #[case(vec![server(VLLM, Some(1)), server(VLLM, Some(2))], "engine-port: missing")]
    fn reports_a_missing_or_contradictory_setting(#[case] servers: Vec<Server>, #[case] expected: &str) {
        let error = resolved(None, None, servers).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
