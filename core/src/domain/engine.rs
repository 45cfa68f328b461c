//! Inference engines.

use std::str::FromStr;

use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// An inference engine that kthena-router supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
}

impl Engine {
    /// The name in annotations, in lower case.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The engine with this name, in any case: a ModelServer writes `vLLM` and `SGLang`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_str(name).ok()
    }

    /// The port on which the engine listens by default.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Vllm => 8000,
            Self::Sglang => 30000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_the_case_of_names() {
        assert_eq!(Engine::from_name("vLLM"), Some(Engine::Vllm));
        assert_eq!(Engine::from_name("SGLang"), Some(Engine::Sglang));
        assert_eq!(Engine::from_name("tgi"), None);
        assert_eq!(Engine::Sglang.to_string(), "sglang");
    }
}
