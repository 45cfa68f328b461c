//! Bounds of the number of ServingGroups.

/// Minimum and maximum number of ServingGroups: 0 <= `min` <= `max`, and `max` >= 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaBounds {
    min: i32,
    max: i32,
}

impl Default for ReplicaBounds {
    /// The built-in bounds: scaling to zero, and more than ten groups of GPUs, require a setting.
    fn default() -> Self {
        Self { min: 1, max: 10 }
    }
}

impl ReplicaBounds {
    /// `None` if no number of ServingGroups lies within the bounds, or only 0.
    pub fn new(min: i32, max: i32) -> Option<Self> {
        (0 <= min && min <= max && max >= 1).then_some(Self { min, max })
    }

    /// Minimum number of ServingGroups.
    pub const fn min(self) -> i32 {
        self.min
    }

    /// Maximum number of ServingGroups.
    pub const fn max(self) -> i32 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, 1, true)]
    #[case(3, 3, true)]
    #[case(4, 3, false)]
    #[case(0, 0, false)]
    #[case(-1, 3, false)]
    fn checks_bounds(#[case] min: i32, #[case] max: i32, #[case] valid: bool) {
        assert_eq!(ReplicaBounds::new(min, max).is_some(), valid);
    }
}
