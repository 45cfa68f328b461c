//! Names, quantities and facts that all other modules use. Each type checks its value once, in its
//! constructor.

mod backlog;
mod capabilities;
mod duration;
mod engine;
mod error;
mod foreign_text;
mod key;
mod label;
mod label_selector;
mod model_names;
pub mod names;
mod namespace_pattern;
mod pause;
mod prometheus_url;
mod quantity;
mod reason;
mod replica_bounds;
mod series_matchers;
mod signal;
mod suggestions;

pub use backlog::{Backlog, DrainTime, Headroom, ServiceTime, ServiceTimeSetting};
pub use capabilities::{Capabilities, Keda};
pub use duration::ScrapeInterval;
pub(crate) use duration::seconds;
pub use engine::Engine;
pub use error::{InvalidValue, ValueError};
pub use foreign_text::shortened;
pub(crate) use foreign_text::shortened_to;
pub use foreign_text::{cut, field_path, listed, printable, quoted};
pub use key::{Key, key, version};
pub use label::{Label, Namespace, ObjectName};
pub use label_selector::LabelSelector;
pub(crate) use model_names::distinct_names;
pub use model_names::{MODEL_NAME_MAX, ModelName, ModelNames};
pub use namespace_pattern::NamespacePattern;
pub use pause::Pause;
pub use prometheus_url::{PrometheusUrl, prometheus_url_pattern};
pub use quantity::{Activation, Target};
pub use reason::{ChainLink, Reason, Status, VerdictReason};
pub use replica_bounds::ReplicaBounds;
pub use series_matchers::SeriesMatchers;
pub use signal::{ACTIVATION, Demand, Saturation, Signal};
pub(crate) use suggestions::SUGGESTIONS_MAX;
pub use suggestions::nearest;
