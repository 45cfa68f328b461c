//! State of a dry run: the numbers of ServingGroups that a model in shadow would have held.

use std::fmt;

use k8s_openapi::jiff::Timestamp;

use crate::{api::kthena::ModelServing, domain::VerdictReason};

/// Text before the range in a message.
const RANGE: &str = "it would have held ";
/// Text around the limit in a message.
const BEYOND: (&str, &str) = ("it is not observed, since ", " older models in shadow are");

/// State of a dry run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShadowState {
    /// No decision yet.
    #[default]
    Starting,
    /// Decided in each period; the numbers so far.
    Observed(ShadowRange),
    /// Not decided, since this many older models are, which is the most.
    BeyondLimit(usize),
}

/// Least and greatest number of ServingGroups that a model in shadow would have held since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowRange {
    /// Least number.
    pub least: i32,
    /// Greatest number.
    pub greatest: i32,
    /// Beginning, in whole seconds.
    pub since: Timestamp,
}

impl ShadowState {
    /// The state in the condition that the operator wrote last, by which a dry run continues after a restart; `None`
    /// if the condition is of another kind.
    pub fn reported(model_serving: &ModelServing) -> Option<Self> {
        let condition = model_serving.condition()?;
        if condition.reason != VerdictReason::Shadow.as_str() {
            return None;
        }
        Self::parse(condition.message.text()?)
    }

    fn parse(message: &str) -> Option<Self> {
        if let Some((_, range)) = message.split_once(RANGE) {
            return ShadowRange::parse(range).map(Self::Observed);
        }
        let (_, limit) = message.split_once(BEYOND.0)?;
        let (limit, _) = limit.split_once(BEYOND.1)?;
        limit.parse().ok().map(Self::BeyondLimit)
    }
}

/// The clause of a message; [`ShadowState::reported`] reads it back.
impl fmt::Display for ShadowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("it has not decided yet"),
            Self::Observed(range) => write!(f, "{RANGE}{range}"),
            Self::BeyondLimit(limit) => write!(f, "{}{limit}{}", BEYOND.0, BEYOND.1),
        }
    }
}

impl ShadowRange {
    /// A range of one number.
    pub fn of(replicas: i32, since: Timestamp) -> Self {
        let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
        Self { least: replicas, greatest: replicas, since }
    }

    /// The range with a further number.
    #[must_use]
    pub fn with(self, replicas: i32) -> Self {
        Self { least: self.least.min(replicas), greatest: self.greatest.max(replicas), ..self }
    }

    fn parse(text: &str) -> Option<Self> {
        let (numbers, rest) = text.split_once(" ServingGroups since ")?;
        let (least, greatest) = numbers.split_once(" to ").unwrap_or((numbers, numbers));
        let since = rest.split([';', ' ', ',']).next()?;
        Some(Self {
            least: least.parse().ok()?,
            greatest: greatest.parse().ok()?,
            since: since.parse().ok()?,
        })
    }
}

impl fmt::Display for ShadowRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, greatest, since } = self;
        if least == greatest {
            return write!(f, "{least} ServingGroups since {since}");
        }
        write!(f, "{least} to {greatest} ServingGroups since {since}")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn since() -> Timestamp {
        "2026-11-26T05:00:07Z".parse().unwrap()
    }

    fn with_condition(reason: &str, message: &str) -> ModelServing {
        let condition = json!({
            "type": "AutoscalingReady", "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(json!({"metadata": {"name": "chat"}, "status": {"conditions": [condition]}}))
            .unwrap()
    }

    #[rstest]
    #[case(ShadowState::Observed(ShadowRange::of(3, since())))]
    #[case(ShadowState::Observed(ShadowRange::of(3, since()).with(11).with(0)))]
    #[case(ShadowState::BeyondLimit(50))]
    fn reads_back_what_a_message_says(#[case] state: ShadowState) {
        let message = format!("in shadow: {state}; remove the annotation");
        assert_eq!(ShadowState::reported(&with_condition("Shadow", &message)), Some(state), "{message}");
    }

    #[rstest]
    #[case("Scaling", "it would have held 1 ServingGroups since 2026-11-26T05:00:07Z")]
    #[case("Shadow", "it would have held many ServingGroups since 2026-11-26T05:00:07Z")]
    #[case("Shadow", "it would have held 1 ServingGroups since then")]
    #[case("Shadow", "it is not observed, since x older models in shadow are")]
    #[case("Shadow", "")]
    fn ignores_other_messages(#[case] reason: &str, #[case] message: &str) {
        assert_eq!(ShadowState::reported(&with_condition(reason, message)), None);
    }

    #[test]
    fn counts_whole_seconds() {
        let range = ShadowRange::of(1, "2026-11-26T05:00:07.9Z".parse().unwrap());
        assert_eq!(range, ShadowRange::of(1, since()));
    }
}
