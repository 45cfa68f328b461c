//! Prints the sample week of arrivals, `config/samples/week.csv`.
//!
//! ```text
//! cargo run -p kthena-keda-core --example week > config/samples/week.csv
//! ```
#![allow(clippy::print_stdout, reason = "an example prints")]

mod generator;

fn main() {
    print!("{}", generator::week());
}
