//! Files of `backtest`: a history or a file of arrivals is read, or refused with a text; a history that is read is written as one that is
//! read again, and replayed.

use kthena_keda_core::foresight::{
    backtest::{Backtest, Periods, PlantOptions, Source},
    fleet::Queue,
    history::{self, History},
    load_file::{self, LoadOptions},
    report::{Costs, Slo},
    settings::Settings,
};

/// Length of a history that is replayed, in seconds: longer ones take too long.
const SECONDS: i64 = 100_000;

/// Checks both readers, and a backtest of what they read.
pub fn history(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        match load_file::read(text, &LoadOptions::default()) {
            Ok(load) => assert!(load.workload.grid().steps() > 0, "a load has rows"),
            Err(error) => assert!(error.to_string().len() < 4000 + data.len(), "{error}"),
        }
    }
    let found = match history::read(data) {
        Ok(found) => found,
        Err(error) => return assert!(error.to_string().len() < 2000, "{error}"),
    };
    let again = write(&history::read(write(&found).as_slice()).expect("a written history"));
    assert_eq!(String::from_utf8(write(&found)), String::from_utf8(again), "written as it was read");
    let Ok(settings) = Settings::from_scaled_object(&found.scaled_object, found.backlog) else { return };
    if found.grid().end() - found.grid().start() > SECONDS {
        return;
    }
    let backtest = Backtest {
        model: String::new(),
        source: Source::History(&found),
        current: &settings,
        candidates: &[],
        fixed: &[Some(3)],
        slo: Slo::default(),
        plant: PlantOptions {
            slots: Some(10.0),
            cold_start: 60.0,
            queue: Queue::Engine,
            service_time: Some(5.0),
        },
        costs: Costs::default(),
        periods: Periods::default(),
        explain: None,
        assume_independent: true,
    };
    if let Ok(report) = backtest.report() {
        assert!(!report.table(None).is_empty());
        assert!(report.json().is_ok() && report.csv().lines().count() == found.grid().steps() + 1);
    }
}

fn write(history: &History) -> Vec<u8> {
    let mut bytes = Vec::new();
    history::write(history, &mut bytes).expect("memory");
    bytes
}
