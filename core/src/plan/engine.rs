//! What a model's pods run and where they listen: by annotation, else by the ModelServers that select them, else as usual.

use crate::{
    intent::{AnnotationError, Intent},
    observed::Routing,
    signals::Engine,
};

/// What is scraped of a model's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engines {
    /// Whose names its series have.
    pub engine: Engine,
    /// Where it listens.
    pub port: u16,
}

/// Finds out; a ModelServing itself does not tell.
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

/// What all say that say anything.
fn agreed<T: PartialEq>(
    routing: &Routing,
    key: &str,
    said: impl Iterator<Item = Option<T>>,
) -> Result<Option<T>, AnnotationError> {
    let mut said = said.flatten();
    let first = said.next();
    if said.any(|other| Some(other) != first) {
        let servers: Vec<&str> = routing.servers.iter().map(|server| server.name.as_str()).collect();
        return Err(AnnotationError::of(
            key,
            format!("missing, and the ModelServers {} do not agree on it; set it", servers.join(", ")),
        ));
    }
    Ok(first)
}

fn unknown(routing: &Routing) -> AnnotationError {
    let why = match routing.servers.as_slice() {
        [] => "no ModelServer selects this ModelServing's pods".to_owned(),
        [server, ..] => format!("the ModelServer {} names no engine that is known", server.name),
    };
    AnnotationError::of(
        "engine",
        format!(
            "missing, and {why}; set it to vllm or sglang, since engine signals have other names in each"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{intent::Profile, observed::Server};
    use rstest::rstest;

    fn server(engine: Option<Engine>, port: Option<u16>) -> Server {
        Server { name: "s".to_owned(), engine, port }
    }

    fn found(
        engine: Option<Engine>,
        engine_port: Option<u16>,
        servers: Vec<Server>,
    ) -> Result<(Engine, u16), String> {
        let profile = Profile::built_in();
        let annotations = [("kthena.io/model-name".to_owned(), "m".to_owned())].into();
        let annotations = crate::intent::Annotations::read(&annotations, None).unwrap().unwrap();
        let intent = Intent { engine, engine_port, ..crate::intent::merge(annotations, &profile).unwrap() };
        let found = engines(&intent, &Routing { servers, ..Routing::default() });
        found.map(|found| (found.engine, found.port)).map_err(|error| error.to_string())
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
    fn by_annotation_then_server_then_as_usual(
        #[case] engine: Option<Engine>,
        #[case] port: Option<u16>,
        #[case] servers: Vec<Server>,
        #[case] expected: (Engine, u16),
    ) {
        assert_eq!(found(engine, port, servers), Ok(expected));
    }

    #[rstest]
    #[case(vec![], "no ModelServer selects")]
    #[case(vec![server(None, Some(1))], "names no engine that is known")]
    #[case(vec![server(VLLM, None), server(SGLANG, None)], "do not agree")]
    #[case(vec![server(VLLM, Some(1)), server(VLLM, Some(2))], "engine-port: missing")]
    fn or_asks(#[case] servers: Vec<Server>, #[case] why: &str) {
        let error = found(None, None, servers).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
