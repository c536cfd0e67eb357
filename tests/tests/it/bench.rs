// SPDX-License-Identifier: MIT OR Apache-2.0

use std::time::Duration;

use tests::bench::{Scale, run};
use tests::json::Json;

#[test]
fn every_measurement_is_made_and_reported() {
    let scale = Scale { rounds: 1, slice: Duration::from_millis(1), clients: 4, monitors: 50 };
    let report = run(&scale, env!("CARGO_BIN_EXE_bench-server").into()).unwrap();
    let json = Json::parse(&report.to_json()).unwrap();
    let sections = json.get("sections").and_then(Json::as_array).unwrap();
    assert_eq!(sections.len(), 2);
    for section in sections {
        let figures = section.get("figures").and_then(Json::as_array).unwrap();
        assert!(figures.iter().all(|figure| matches!(figure.get("value"), Some(Json::Number(_)))));
        let of_ours =
            |figure: &&Json| figure.get("of").and_then(Json::as_str) == Some("qmp-server");
        assert_eq!(figures.iter().filter(of_ours).count(), 11);
        let targets = section.get("targets").and_then(Json::as_array).unwrap();
        let target = |what: &str| {
            let mut targets = targets.iter();
            targets.find(|target| target.get("what").and_then(Json::as_str) == Some(what)).unwrap()
        };
        let failures = target("100 connects: failures").get("value");
        assert_eq!(failures, Some(&Json::Number("0.000".to_owned())));
    }
}
