//! Roles of a ServingGroup on the real Kthena: each is scaled by the load of its own pods, and no other pod is replaced.

use std::{collections::BTreeMap, time::Duration};

use engine::{Engine, EngineSettings, Load, LoadSettings};
use harness::{Chain, ChainSettings, Model, chain::can_run, kinds, wait::until_asked};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::json;

use super::shared::{BINARY, SETTLED, explain};

/// The number of prefill instances is that of the decode instances at least.
const ROLES: &str = "prefill: engine-running=4 max=3; decode: kv-cache=0.4 max=4; ratio: min=1 max=3";

/// Words of a prompt, which fills a tenth of the KV cache.
const PROMPT: usize = 1600;

/// UID of each pod by role and name.
type Pods = BTreeMap<(String, String), String>;

/// A model with the roles `prefill` and `decode` in one ServingGroup. Requests for `<name>-<role>` go to the pods of that role.
async fn model(chain: &Chain, engine: &Engine, name: &str) -> Model {
    let namespace = chain.stack.namespace().await;
    let mut names = Vec::new();
    for role in ["prefill", "decode"] {
        namespace.model_server(role, "chat", engine.port).await;
        let labels = json!({"matchLabels": {"modelserving.volcano.sh/role": role}});
        namespace.edit_model_server(role, json!({"workloadSelector": labels})).await;
        let served = format!("{name}-{role}");
        namespace.model_route(role, &served, &[(role, 100)]).await;
        names.push(served);
    }
    let builder = namespace.model_serving("chat").roles(&["prefill", "decode"]).scheduled();
    let serving =
        builder.opted_in(&names.join(",")).annotated("autoscaling.kthena.io/roles", ROLES).create().await;
    Model { name: name.to_owned(), serving }
}

fn load(chain: &Chain, chat: &Model, role: &str) -> Load {
    let settings = LoadSettings {
        router: chain.router.url.clone(),
        model: format!("{}-{role}", chat.name),
        tokens: 100_000,
        most_requests: 20_000,
    };
    Load::with_prompts(settings, PROMPT)
}

async fn pods(chat: &Model) -> Pods {
    let found = chat.serving.namespace.api(&kinds::pod()).list(&ListParams::default()).await.unwrap().items;
    let alive = found.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    alive
        .map(|pod| {
            let role = pod.labels()["modelserving.volcano.sh/role"].clone();
            ((role, pod.name_any()), pod.uid().unwrap())
        })
        .collect()
}

fn count(pods: &Pods) -> (usize, usize) {
    let of = |name: &str| pods.keys().filter(|(role, _)| role == name).count();
    (of("prefill"), of("decode"))
}

/// Waits until there are as many pods of both roles. All pods that were there before, or all that are left of them, are the same.
async fn has(chat: &Model, before: &Pods, numbers: (usize, usize)) -> Pods {
    let what = format!("{}: there are {} prefill and {} decode pods", chat.name, numbers.0, numbers.1);
    let found = until_asked(&what, async || pods(chat).await, |found| count(found) == numbers).await;
    let kept = before.iter().filter(|(pod, uid)| found.get(*pod) == Some(*uid)).count();
    let (least_prefill, least_decode) = count(before);
    let expected = least_prefill.min(numbers.0) + least_decode.min(numbers.1);
    assert_eq!(kept, expected, "a pod that stays was replaced: {before:?}, then {found:?}");
    found
}

async fn keeps(chat: &Model, expected: &Pods) {
    tokio::time::sleep(SETTLED).await;
    assert_eq!(&pods(chat).await, expected);
}

#[tokio::test]
async fn scales_each_role_by_its_own_load() {
    if !can_run() {
        return;
    }
    let settings = ChainSettings::quick(BINARY);
    let mut chain = Chain::start(&settings).await;
    chain.operator = None;
    chain.stack.allow_roles().await;
    chain.operator_settings = chain.operator_settings.clone().with("--scale-roles=true");
    chain.start_operator();
    let engine = Engine::start(EngineSettings {
        concurrency: 100,
        token_time: Duration::from_secs(1),
        kv_blocks: 10 * PROMPT / 16,
        ..EngineSettings::default()
    });
    let chat = model(&chain, &engine, "roles").await;
    chat.serving.reason("Idle").await;
    let idle = has(&chat, &Pods::new(), (1, 1)).await;
    let revision = chat.serving.get().await.data["status"]["currentRevision"].clone();

    let prefill = load(&chain, &chat, "prefill");
    prefill.hold(7);
    let two = has(&chat, &idle, (2, 1)).await;
    // 40 requests need ten instances, and the maximum is three.
    prefill.hold(40);
    let three = has(&chat, &two, (3, 1)).await;
    keeps(&chat, &three).await;
    prefill.hold(0);
    let one = has(&chat, &three, (1, 1)).await;

    // Seven requests take 0.7 of a cache, which needs two instances, and the ratio as many of prefill.
    let decode = load(&chain, &chat, "decode");
    decode.hold(7);
    let both = has(&chat, &one, (2, 2)).await;
    keeps(&chat, &both).await;
    let (report, _) = explain(&chain, &chat);
    assert_eq!(report["status"], "True", "{report:#}");
    decode.hold(0);
    has(&chat, &both, (1, 1)).await;

    let live = chat.serving.get().await;
    assert_eq!(live.data["spec"]["replicas"], 1);
    assert_eq!(live.data["status"]["currentRevision"], revision, "scaling is no rollout");
}
