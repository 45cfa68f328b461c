//! Untrusted texts in queries: each stays data and leaves the structure of the query unchanged.
//!
//! Input: texts separated by the byte 0xff, which UTF-8 never contains: a template, a namespace, a name, then
//! model names or other texts.

use kthena_keda_core::{
    domain::{ModelNames, Objective, ScrapeInterval, SeriesMatchers},
    promql::{Query, Subject, Template, alternation, quote},
    signals::{
        Demand, DemandScope, Engine, EngineSeries, Latency, LatencySignal, RouterSeries, Saturation,
        ScrapeSource, activation,
    },
};
use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{self, Expr},
};

/// Placeholder texts for the comparison of structures.
const PLAIN: [&str; 4] = ["zz-namespace", "zz-name", "zz-model", "zz-adapter"];

/// Checks quoting, the query builders and templates.
pub fn promql(data: &[u8]) {
    let texts: Vec<String> =
        data.split(|byte| *byte == 0xff).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let [template, namespace, name, models @ ..] = texts.as_slice() else { return };
    check_quotes(&texts);
    if !models.is_empty() {
        check_alternation(models);
    }
    check_builders(namespace, name, models);
    check_template(template, namespace, name, models);
}

fn check_quotes(texts: &[&str]) {
    let quoted: Vec<String> = texts.iter().map(|text| format!("l={}", quote(text))).collect();
    let query = format!("m{{{}}}", quoted.join(","));
    let found = matchers(&parse(&query));
    assert!(found.iter().all(|matcher| matcher.name == "l" && matcher.op == MatchOp::Equal), "{query}");
    let values: Vec<&str> = found.iter().map(|matcher| matcher.value.as_str()).collect();
    assert_eq!(values, texts, "{query}");
}

fn check_alternation(texts: &[&str]) {
    let query = format!("m{{l=~{}}}", alternation(texts.iter().copied()));
    let [matcher] =
        matchers(&parse(&query)).try_into().unwrap_or_else(|_| panic!("expected one matcher: {query}"));
    for text in texts {
        assert!(matcher.is_match(text), "{query} does not match {text:?}");
        for other in [format!("{text}x"), format!("x{text}"), text.chars().skip(1).collect()] {
            assert_eq!(matcher.is_match(&other), texts.contains(&other.as_str()), "{query} and {other:?}");
        }
    }
}

/// Checks every query that the operator generates, with each text in its place.
fn check_builders(namespace: &str, name: &str, texts: &[&str]) {
    let servers: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    let names = texts.join(",").parse::<ModelNames>().ok();
    let service = RouterSeries::new(namespace, ScrapeSource::Service(name.to_owned()));
    let job = RouterSeries::new(namespace, ScrapeSource::Job(name.to_owned()));
    let mut queries = Vec::new();
    for router in [&service, &job] {
        let by_server = (!servers.is_empty()).then(|| DemandScope::Servers(servers.clone()));
        for scope in names.clone().map(DemandScope::Models).into_iter().chain(by_server) {
            let demands =
                [Demand::ActiveRequests, Demand::QueuedRequests, Demand::RequestRate, Demand::OutputTokens];
            queries.extend(demands.iter().filter_map(|demand| demand.query(&scope, router)));
        }
        queries.extend(names.as_ref().map(|names| activation(names, router)));
    }
    let role = texts.first().map(|role| (*role).to_owned());
    let engines = [(Engine::Vllm, None, role), (Engine::Sglang, Some(service), None)];
    for (engine, at_zero, role) in engines {
        let series = EngineSeries {
            engine,
            namespace: namespace.to_owned(),
            model_serving: name.to_owned(),
            role,
            matchers: SeriesMatchers::default(),
            at_zero,
        };
        queries.extend(
            [Saturation::Queue, Saturation::Running, Saturation::KvCache].map(|signal| signal.query(&series)),
        );
        for latency in [Latency::FirstToken, Latency::InterToken] {
            let Ok(objective) = Objective::parse(latency, "2s") else { continue };
            let signal = LatencySignal::of(&series, objective, ScrapeInterval::default());
            queries.extend([signal.total, signal.lowest]);
        }
    }
    for query in queries {
        let query = query.to_string();
        for matcher in matchers(&parse(&query)) {
            check_matcher(&matcher, namespace, name, names.as_ref(), texts, &query);
        }
    }
}

fn check_matcher(
    matcher: &Matcher,
    namespace: &str,
    name: &str,
    names: Option<&ModelNames>,
    servers: &[&str],
    query: &str,
) {
    let is_correct = match matcher.name.as_str() {
        // Applies to series of engines and of the router, which have no other common label.
        "namespace" => is_equal(matcher, namespace),
        "service" | "job" | "modelserving_volcano_sh_name" => is_equal(matcher, name),
        "modelserving_volcano_sh_role" => servers.first().is_some_and(|role| is_equal(matcher, role)),
        "model" => names.is_some_and(|names| names.iter().all(|name| matcher.is_match(name))),
        "model_server" => servers.iter().all(|server| matcher.is_match(server)),
        "__name__" | "token_type" | "pod" | "le" => true,
        other => panic!("unexpected matcher {other} in {query}"),
    };
    assert!(is_correct, "unexpected value of the matcher {} in {query}", matcher.name);
}

fn is_equal(matcher: &Matcher, text: &str) -> bool {
    matcher.op == MatchOp::Equal && matcher.value == text
}

/// Checks that a template which is valid for one model is valid for all, and that its queries differ only in
/// texts.
fn check_template(template: &str, namespace: &str, name: &str, texts: &[&str]) {
    let Ok(template) = Template::parse(template) else { return };
    let models = texts.get(..1).unwrap_or_default();
    let adapters = texts.get(1..).unwrap_or_default();
    if models.is_empty() {
        return;
    }
    let [plain_namespace, plain_name, plain_model, plain_adapter] = PLAIN;
    let plain_adapters = vec![plain_adapter; adapters.len()];
    let matchers = &SeriesMatchers::default();
    let filled = template
        .fill(&Subject { models, adapters, namespace, name, matchers })
        .expect("a template accepts one model")
        .to_string();
    let plain = Subject {
        models: &[plain_model],
        adapters: &plain_adapters,
        namespace: plain_namespace,
        name: plain_name,
        matchers,
    };
    let plain = template.fill(&plain).expect("a template accepts one model").to_string();
    assert!(Query::parse(&filled).is_ok(), "{:?}: {filled}", Query::parse(&filled));
    let (mut filled_tree, mut plain_tree) = (parse(&filled), parse(&plain));
    let (found, expected) = (take_texts(&mut filled_tree), take_texts(&mut plain_tree));
    assert_eq!(format!("{filled_tree:?}"), format!("{plain_tree:?}"), "the structure differs: {filled}");
    assert_eq!(found.len(), expected.len(), "{filled}");
    for (found, expected) in found.iter().zip(&expected) {
        let text = match expected.as_str() {
            text if text == plain_namespace => namespace,
            text if text == plain_name => name,
            text if text == plain_model && adapters.is_empty() => models[0],
            text if !PLAIN.iter().any(|plain| text.contains(plain)) => text,
            _ => continue,
        };
        let pattern = unquoted(&alternation([text]));
        assert!(*found == text || *found == pattern, "{found:?} instead of {text:?} in {filled}");
    }
}

/// Value of a quoted text after parsing.
fn unquoted(quoted: &str) -> String {
    matchers(&parse(&format!("m{{l={quoted}}}")))[0].value.clone()
}

fn parse(query: &str) -> Expr {
    parser::parse(query).unwrap_or_else(|error| panic!("{error}: {query}"))
}

fn matchers(expr: &Expr) -> Vec<Matcher> {
    let mut found = Vec::new();
    visit(&mut expr.clone(), &mut |part| {
        if let Part::Matcher(matcher) = part {
            found.push(matcher.clone());
        }
    });
    found
}

/// Takes all texts out of a query and leaves them empty.
fn take_texts(expr: &mut Expr) -> Vec<String> {
    let mut found = Vec::new();
    visit(expr, &mut |part| match part {
        Part::Matcher(matcher) => {
            found.push(std::mem::take(&mut matcher.value));
            // A regular-expression matcher also holds its compiled pattern; make it an equality matcher.
            if !matches!(matcher.op, MatchOp::Equal | MatchOp::NotEqual) {
                matcher.op = MatchOp::Equal;
            }
        }
        Part::Text(text) => found.push(std::mem::take(text)),
    });
    found
}

enum Part<'a> {
    Matcher(&'a mut Matcher),
    Text(&'a mut String),
}

fn visit(expr: &mut Expr, visitor: &mut impl FnMut(Part<'_>)) {
    match expr {
        Expr::Aggregate(aggregate) => {
            visit(&mut aggregate.expr, visitor);
            if let Some(parameter) = &mut aggregate.param {
                visit(parameter, visitor);
            }
        }
        Expr::Binary(binary) => {
            visit(&mut binary.lhs, visitor);
            visit(&mut binary.rhs, visitor);
        }
        Expr::Paren(paren) => visit(&mut paren.expr, visitor),
        Expr::Unary(unary) => visit(&mut unary.expr, visitor),
        Expr::Subquery(subquery) => visit(&mut subquery.expr, visitor),
        Expr::Call(call) => call.args.args.iter_mut().for_each(|arg| visit(arg, visitor)),
        Expr::VectorSelector(selector) => {
            selector.matchers.matchers.iter_mut().for_each(|matcher| visitor(Part::Matcher(matcher)));
        }
        Expr::MatrixSelector(selector) => {
            selector.vs.matchers.matchers.iter_mut().for_each(|matcher| visitor(Part::Matcher(matcher)));
        }
        Expr::StringLiteral(literal) => visitor(Part::Text(&mut literal.val)),
        Expr::NumberLiteral(_) | Expr::Extension(_) => {}
    }
}
