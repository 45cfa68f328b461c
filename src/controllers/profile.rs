//! Says of every AutoscalingProfile how many models use it and whether it can be used.

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::Api;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::Context;
use crate::{
    cluster::{Error, server_side_apply},
    runtime::backoff,
};
use kthena_keda_core::{
    api::profile::AutoscalingProfileStatus,
    observed::{LiveProfile, ProfileDigest},
};

/// ModelServingContext come and go in crowds: their number is written once for all that happened meanwhile.
const GATHER: Duration = Duration::from_secs(1);

/// Runs for life: a pass whenever `wake` is notified, and again after a failure.
pub async fn run(context: Context, wake: &Notify) {
    context.caches.model_digests.wait_synced().await;
    let mut failures = 0;
    loop {
        let pause = match pass(&context).await {
            Ok(()) => {
                failures = 0;
                Duration::MAX
            }
            Err(error) => {
                failures += 1;
                let delay = backoff::delay(failures, error.class().longest_delay());
                if failures > 2 {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        failures,
                        ?delay,
                        "cannot write the status of a profile; will try again"
                    );
                }
                delay
            }
        };
        // Either way it is time for a pass.
        let _ = timeout(pause, wake.notified()).await;
        sleep(GATHER).await;
    }
}

async fn pass(context: &Context) -> Result<(), Error> {
    let caches = &context.caches;
    let served = context.served.borrow().is_some_and(|served| served.profiles);
    if !context.cluster_duties || !served || !caches.profiles.has_synced() {
        return Ok(());
    }
    let api: Api<LiveProfile> = Api::all(context.client.clone());
    for ((_, name), profile) in caches.profiles.all() {
        let Some(users) = caches.users(&name) else { return Ok(()) };
        let status = status(&profile, users);
        if status != profile.status {
            let written =
                server_side_apply::merge_status(&api, &name, profile.resource_version, status).await?;
            caches.profiles.record_write(&written);
        }
    }
    Ok(())
}

/// The times stay where nothing changed, so that nothing is written then.
fn status(profile: &ProfileDigest, users: i32) -> AutoscalingProfileStatus {
    let (status, reason, message) = match &profile.settings {
        Ok(_) => ("True", "Valid", "the profile can be used".to_owned()),
        Err(errors) => {
            ("False", "InvalidConfiguration", format!("{errors}; models that use it keep what they have"))
        }
    };
    let before = profile.status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let since =
        before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
    let ready = Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
        observed_generation: profile.generation,
    };
    let others = profile.status.conditions.iter().filter(|condition| condition.type_ != "Ready").cloned();
    AutoscalingProfileStatus {
        observed_generation: profile.generation,
        model_servings: users,
        conditions: others.chain([ready]).collect(),
    }
}
