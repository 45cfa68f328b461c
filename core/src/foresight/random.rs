//! Seeded pseudo-random numbers, so that a simulation can be repeated exactly.

/// Generator of 64-bit numbers (the algorithm is called `SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose numbers follow from the seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in (0, 1].
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// Log-normal with mean 1 and this coefficient of variation.
    pub fn log_normal(&mut self, variation: f64) -> f64 {
        let variance = variation.mul_add(variation, 1.0).ln();
        let normal = (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
        variance.sqrt().mul_add(normal, -variance / 2.0).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(mut draw: impl FnMut(&mut Random) -> f64) -> f64 {
        let mut random = Random::new(7);
        (0..20_000).map(|_| draw(&mut random)).sum::<f64>() / 20_000.0
    }

    #[test]
    fn has_the_means_that_it_states() {
        assert!((mean(Random::uniform) - 0.5).abs() < 0.01);
        assert!((mean(Random::exponential) - 1.0).abs() < 0.03);
        assert!((mean(|random| random.log_normal(0.5)) - 1.0).abs() < 0.02);
        assert!((mean(|random| (random.log_normal(0.5) - 1.0).powi(2)) - 0.25).abs() < 0.02);
    }
}
