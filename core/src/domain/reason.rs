//! Reasons and statuses of the condition, and the link of the chain that each reason belongs to.

use strum::{IntoStaticStr, VariantArray};

/// Problems that keep a model from being scaled, in the order of the chain: the first one is to be fixed
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
pub enum Reason {
    /// An annotation or the profile is invalid.
    InvalidConfiguration,
    /// The named profile does not exist.
    ProfileNotFound,
    /// No Prometheus address is known.
    PrometheusNotConfigured,
    /// Other ModelServings serve the same model name, and no route separates their requests.
    SharedModelName,
    /// No signal would wake the model once it is at zero.
    CannotWakeFromZero,
    /// Another autoscaler scales the same ModelServing.
    ConflictingAutoscaler,
    /// An object with the name of a generated one has another owner.
    NameConflict,
    /// An object with the name of a generated one belongs to a deleted ModelServing of the same name, until the
    /// garbage collector deletes it.
    #[strum(serialize = "Pending")]
    OwnerDeleted,
    /// The API server does not serve ScaledObjects.
    KedaNotInstalled,
    /// The API server does not serve `modelservings/scale`.
    ScaleSubresourceMissing,
    /// The operator, or the user of `explain`, may not read a kind that the plan depends on.
    MissingPermission,
    /// A kind that the plan depends on could not be read yet.
    #[strum(serialize = "Pending")]
    NotListed,
    /// The selector does not match one pod for each ServingGroup, which a `Value` metric depends on.
    SelectorMismatch,
    /// KEDA, the API server or a webhook does not accept the ScaledObject.
    ScaledObjectNotReady,
    /// The HPA reports that it is not scaling.
    HpaNotScaling,
    /// Prometheus has no series of the router.
    RouterNotScraped,
    /// Prometheus has no series of the engines.
    EngineNotScraped,
    /// No route carries the model name, or the router never received a request for it.
    ModelNotSeen,
}

/// A link of the chain from annotation to pods, in the order in which `explain` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
pub enum ChainLink {
    /// The annotations of the ModelServing.
    Annotations,
    /// The AutoscalingProfile and the Prometheus address.
    Profile,
    /// The part of the requests that this ModelServing serves.
    Demand,
    /// Other autoscalers and foreign objects.
    OtherAutoscalers,
    /// The APIs that the cluster serves, and the permissions to read them.
    Cluster,
    /// `status.labelSelector`.
    Selector,
    /// The ScaledObject.
    ScaledObject,
    /// The HPA that KEDA creates.
    Hpa,
    /// The series in Prometheus.
    Scraping,
    /// The model name in routes and requests.
    Model,
    /// The pod that holds requests at zero.
    StandIn,
}

impl Reason {
    /// The reason as conditions, events and metrics carry it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The link of the chain that is broken for this reason.
    pub const fn link(self) -> ChainLink {
        match self {
            Self::InvalidConfiguration => ChainLink::Annotations,
            Self::ProfileNotFound | Self::PrometheusNotConfigured => ChainLink::Profile,
            Self::SharedModelName | Self::CannotWakeFromZero => ChainLink::Demand,
            Self::ConflictingAutoscaler | Self::NameConflict | Self::OwnerDeleted => {
                ChainLink::OtherAutoscalers
            }
            Self::KedaNotInstalled
            | Self::ScaleSubresourceMissing
            | Self::MissingPermission
            | Self::NotListed => ChainLink::Cluster,
            Self::SelectorMismatch => ChainLink::Selector,
            Self::ScaledObjectNotReady => ChainLink::ScaledObject,
            Self::HpaNotScaling => ChainLink::Hpa,
            Self::RouterNotScraped | Self::EngineNotScraped => ChainLink::Scraping,
            Self::ModelNotSeen => ChainLink::Model,
        }
    }

    /// `true` if the reason repeats a report of KEDA, the HPA or Prometheus, which may change at any time.
    pub const fn is_external(self) -> bool {
        match self {
            Self::ScaledObjectNotReady
            | Self::HpaNotScaling
            | Self::RouterNotScraped
            | Self::EngineNotScraped
            | Self::ModelNotSeen => true,
            Self::InvalidConfiguration
            | Self::ProfileNotFound
            | Self::PrometheusNotConfigured
            | Self::SharedModelName
            | Self::CannotWakeFromZero
            | Self::ConflictingAutoscaler
            | Self::NameConflict
            | Self::OwnerDeleted
            | Self::KedaNotInstalled
            | Self::ScaleSubresourceMissing
            | Self::MissingPermission
            | Self::NotListed
            | Self::SelectorMismatch => false,
        }
    }

    /// `true` if the problem is not certain: an object that the plan depends on could not be read, or is about to
    /// be deleted.
    pub const fn is_unknown(self) -> bool {
        matches!(self, Self::MissingPermission | Self::NotListed | Self::OwnerDeleted)
    }
}

impl ChainLink {
    /// The name of the link in the output of `explain`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Annotations => "annotations",
            Self::Profile => "profile",
            Self::Demand => "demand",
            Self::OtherAutoscalers => "other autoscalers",
            Self::Cluster => "cluster",
            Self::Selector => "selector",
            Self::ScaledObject => "ScaledObject",
            Self::Hpa => "HPA",
            Self::Scraping => "scraping",
            Self::Model => "model",
            Self::StandIn => "stand-in",
        }
    }
}

/// Reason of a verdict: the problem that keeps a model from being scaled, or its state without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VerdictReason {
    /// A problem keeps the model from being scaled.
    Problem(Reason),
    /// KEDA has not reported on the ScaledObject yet, or an input of the plan could not be read yet.
    Pending,
    /// KEDA reports activity: a signal is above its activation threshold.
    Scaling,
    /// KEDA reports no activity.
    Idle,
    /// An annotation pauses all scaling.
    Paused,
    /// An annotation asks for a dry run: the operator decides, and nothing is scaled.
    Shadow,
}

impl From<Reason> for VerdictReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotListed | Reason::OwnerDeleted => Self::Pending,
            reason => Self::Problem(reason),
        }
    }
}

impl VerdictReason {
    /// The reason as conditions, events and metrics carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problem(reason) => reason.as_str(),
            Self::Pending => "Pending",
            Self::Scaling => "Scaling",
            Self::Idle => "Idle",
            Self::Paused => "Paused",
            Self::Shadow => "Shadow",
        }
    }
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Status {
    /// The model is being scaled.
    True,
    /// The model is not being scaled.
    False,
    /// Not known yet.
    Unknown,
}

impl Status {
    /// The status as conditions carry it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
