//! The status of AutoscalingProfiles: number of ModelServings that use each, and whether it is valid.

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
    sources::kinds::WatchedKind as _,
};
use kthena_keda_core::{
    api::profile::AutoscalingProfileStatus,
    observed::{LiveProfile, ProfileDigest, Readable},
};

/// Time for which changes are collected. ModelServings come and go in bursts, and their number is written once for each burst.
const COLLECT: Duration = Duration::from_secs(1);

/// Runs for the life of the process: reconciles whenever `wake` is notified, and again after a failure.
pub async fn run(context: Context, wake: &Notify) {
    context.caches.model_digests.wait_synced().await;
    let mut failures = 0;
    loop {
        let pause = match reconcile(&context).await {
            Ok(()) => {
                failures = 0;
                Duration::MAX
            }
            Err(error) => {
                failures += 1;
                retry_delay(&context, &error, failures)
            }
        };
        // A notification and the end of the pause both lead to a reconcile.
        let _ = timeout(pause, wake.notified()).await;
        sleep(COLLECT).await;
    }
}

fn retry_delay(context: &Context, error: &Error, failures: u32) -> Duration {
    context.metrics.error(error.class().as_str());
    let delay = backoff::delay(failures, error.class().longest_delay());
    if failures > 2 {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, failures, ?delay, "cannot write the status of a profile; retrying");
    }
    delay
}

async fn reconcile(context: &Context) -> Result<(), Error> {
    let Some(served) = context.served.borrow().clone() else { return Ok(()) };
    let profiles = LiveProfile::store(&context.caches.stores);
    if !context.cluster_duties || !LiveProfile::is_served(&served) || profiles.readable() != Readable::Yes {
        return Ok(());
    }
    let api: Api<LiveProfile> = Api::all(context.client.clone());
    let mut failure = None;
    for ((_, name), profile) in profiles.all() {
        let Some(users) = context.caches.users(&name, profile.settings.as_ref().ok()) else { return Ok(()) };
        let status = status(&profile, users);
        if status != profile.status {
            match server_side_apply::merge_status(&api, &name, profile.resource_version, status).await {
                Ok(written) => profiles.record_write(&written),
                // A rejection of one is no reason to leave the others as they are.
                Err(error) if error.class().needs_action() => failure = failure.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// The status of a profile. The transition time stays where the status does, so that equal statuses compare equal.
fn status(profile: &ProfileDigest, users: i32) -> AutoscalingProfileStatus {
    let (status, reason, message) = match &profile.settings {
        Ok(_) => ("True", "Valid", "the profile is valid".to_owned()),
        Err(errors) => {
            let message = format!(
                "{errors}. Models that use the profile keep their ScaledObjects. Correct the profile"
            );
            ("False", "InvalidConfiguration", message)
        }
    };
    let (before, others): (Vec<_>, Vec<_>) =
        profile.status.conditions.iter().cloned().partition(|condition| condition.type_ == "Ready");
    let since =
        before.into_iter().find(|before| before.status == status).map(|before| before.last_transition_time);
    let ready = Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
        observed_generation: profile.generation,
    };
    AutoscalingProfileStatus {
        observed_generation: profile.generation,
        model_servings: users,
        conditions: others.into_iter().chain([ready]).collect(),
    }
}
