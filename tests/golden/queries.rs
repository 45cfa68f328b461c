//! Queries: their text, and the proof that a model name cannot change their structure.

use kthena_keda_core::{
    domain::{ModelNames, Objective, ScrapeInterval, SeriesMatchers},
    signals::{
        Demand, DemandScope, Engine, EngineSeries, Latency, LatencySignal, RouterSeries, Saturation,
        activation, duration_quantile, mean_duration, start_quantile, starts,
    },
};
use promql_parser::parser::{self, Expr};
use proptest::prelude::*;

fn router() -> RouterSeries {
    RouterSeries::assumed("kthena-system")
}

const DEMANDS: [Demand; 4] =
    [Demand::ActiveRequests, Demand::QueuedRequests, Demand::RequestRate, Demand::OutputTokens];

fn queries(names: &ModelNames) -> Vec<String> {
    let demanded = DemandScope::Models(names.clone());
    let mut queries: Vec<String> =
        DEMANDS.iter().map(|demand| demand.query(&demanded, &router()).unwrap().to_string()).collect();
    queries.push(activation(names, &router()).to_string());
    queries.push(mean_duration(&router(), names).to_string());
    queries.push(duration_quantile(&router(), names, 95).to_string());
    queries
}

/// Queries that contain no model name.
fn queries_without_names() -> Vec<String> {
    let servers = DemandScope::Servers(vec!["team-a/chat".to_owned(), "team-a/chat-2".to_owned()]);
    let mut queries = vec![Demand::ActiveRequests.query(&servers, &router()).unwrap().to_string()];
    for (engine, at_zero) in [(Engine::Vllm, None), (Engine::Sglang, Some(router()))] {
        let series = EngineSeries {
            engine,
            namespace: "team-a".to_owned(),
            model_serving: "chat".to_owned(),
            role: None,
            matchers: SeriesMatchers::default(),
            at_zero,
        };
        queries.extend(
            [Saturation::Queue, Saturation::Running, Saturation::KvCache]
                .map(|signal| signal.query(&series).to_string()),
        );
        queries.push(series.first_token(95).to_string());
        queries.push(starts("team-a", "chat", "604800s", &series.matchers).to_string());
        queries.push(start_quantile("team-a", "chat", "604800s", &series.matchers, 95).to_string());
        let objective = |latency, text| Objective::parse(latency, text).unwrap();
        queries.extend(
            [objective(Latency::FirstToken, "2s"), objective(Latency::InterToken, "50ms")]
                .map(|it| LatencySignal::of(&series, it, ScrapeInterval::default()).total.to_string()),
        );
    }
    queries
}

fn parse(query: &str) -> Expr {
    parser::parse(query).unwrap_or_else(|error| panic!("{query}\n{error}"))
}

/// Structure of a query: its syntax tree as text, with the matchers of the label `model` replaced.
fn structure(query: &str) -> String {
    struct Blank;
    impl Blank {
        fn blank(expr: &mut Expr) {
            match expr {
                Expr::Aggregate(aggregate) => Self::blank(&mut aggregate.expr),
                Expr::Binary(binary) => {
                    Self::blank(&mut binary.lhs);
                    Self::blank(&mut binary.rhs);
                }
                Expr::Paren(paren) => Self::blank(&mut paren.expr),
                Expr::Unary(unary) => Self::blank(&mut unary.expr),
                Expr::Subquery(subquery) => Self::blank(&mut subquery.expr),
                Expr::Call(call) => call.args.args.iter_mut().for_each(|arg| Self::blank(arg)),
                Expr::VectorSelector(selector) => Self::matchers(&mut selector.matchers),
                Expr::MatrixSelector(selector) => Self::matchers(&mut selector.vs.matchers),
                Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
            }
        }

        fn matchers(matchers: &mut promql_parser::label::Matchers) {
            for matcher in &mut matchers.matchers {
                if matcher.name == "model" {
                    "MODEL".clone_into(&mut matcher.value);
                    matcher.op = promql_parser::label::MatchOp::Equal;
                }
            }
        }
    }
    let mut expr = parse(query);
    Blank::blank(&mut expr);
    format!("{expr:?}")
}

#[test]
fn every_query_matches_the_snapshot() {
    insta::assert_snapshot!(
        queries(&"llama".parse().unwrap())
            .into_iter()
            .chain(queries_without_names())
            .collect::<Vec<_>>()
            .join("\n")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_model_name_never_changes_the_structure(name in r#"([^\x00-\x1f\x7f-\x9f,]|["'`{}()\\|.*=~#$ ]){1,40}"#) {
        prop_assume!(!name.trim_matches(' ').is_empty());
        let odd: ModelNames = name.parse().unwrap();
        let plain: ModelNames = "plain".parse().unwrap();
        for (odd, plain) in queries(&odd).iter().zip(queries(&plain)) {
            prop_assert_eq!(structure(odd), structure(&plain));
            prop_assert!(matches_name(odd, name.trim_matches(' ')), "{}", odd);
        }
    }

    #[test]
    fn several_model_names_never_change_the_structure(a in r"[^\x00-\x1f\x7f-\x9f, ]{1,20}", b in r"[^\x00-\x1f\x7f-\x9f, ]{1,20}") {
        prop_assume!(a != b);
        let odd: ModelNames = format!("{a},{b}").parse().unwrap();
        let plain: ModelNames = "x,y".parse().unwrap();
        for (odd, plain) in queries(&odd).iter().zip(queries(&plain)) {
            prop_assert_eq!(structure(odd), structure(&plain));
        }
    }
}

/// `true` if the parsed query matches exactly this name.
fn matches_name(query: &str, name: &str) -> bool {
    format!("{:?}", parse(query)).contains(&format!("{name:?}"))
}
