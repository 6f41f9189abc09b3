//! The whole table in this process: 0 wrong and 0 wedged.

use hostile::{Totals, rows};

#[test]
fn no_row_ends_wrong_or_wedged() {
    if !rows::engine::host_has_io_uring() {
        harness::skip::skipped("no io_uring: its rows are played within the calls");
    }
    let mut totals = Totals::default();
    rows::all().iter().for_each(|row| totals.play(row));
    println!("{totals}");
    let problems = totals.problems.join("\n");
    assert!(totals.problems.is_empty(), "{problems}\n{totals}");
}

#[test]
fn every_row_is_one_of_its_own() {
    let rows = rows::all();
    for row in &rows {
        assert!(!row.spec.is_empty() && !row.about.is_empty(), "{}", row.id);
        let same = |other: &&hostile::Row| other.id == row.id || other.about == row.about;
        let count = rows.iter().filter(same).count();
        assert_eq!(count, 1, "{}: {}", row.id, row.about);
    }
}
