//! Names, quantities and facts that every other module speaks of; values are checked once, when they are made.

mod capabilities;
mod key;
mod label;
mod label_selector;
pub mod names;
mod reason;
mod suggestions;
mod values;

pub use capabilities::{Capabilities, Keda};
pub use key::{Key, key, version};
pub use label::{Label, Namespace, ObjectName};
pub use label_selector::LabelSelector;
pub use reason::{ChainLink, Reason, Status, VerdictReason};
pub use suggestions::nearest;
pub(crate) use values::Seconds;
pub use values::{
    Activation, ModelName, ModelNames, Pause, PrometheusUrl, ReplicaBounds, ScrapeInterval, Target,
    ValueError,
};
