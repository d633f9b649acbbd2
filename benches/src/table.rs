use crate::Row;
use std::fmt::Write as _;

const HEAD: &str = "\
store    transport     work        case       fails  side  batch   floor/s    ours/s  ratio    loop/s  server us (floor)  client us (floor)  bytes  p50 ms (floor)  p99 ms  wake p50 (p99)
";

/// The rows as lines for people.
#[must_use]
pub fn table(rows: &[Row], with_head: bool) -> String {
    let mut lines = if with_head { HEAD.to_owned() } else { String::new() };
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    for row in rows {
        let pair = |ours, floor| format!("{} ({})", number(ours, 2), number(floor, 2));
        let rate = |rate: u64| if rate == 0 { "-".to_owned() } else { rate.to_string() };
        // Writing to a string does not fail.
        let _ = writeln!(
            lines,
            "{:<8} {:<13} {:<11} {:<10} {:>4}% {:>5} {:>6} {:>9} {:>9} {:>6} {:>9} {:>18} {:>18} {:>6} {:>15} {:>7} {:>15}",
            row.storage,
            row.transport,
            row.work.name(),
            row.case,
            row.failing_percent,
            row.relays,
            row.batch,
            rate(row.floor_per_s),
            rate(row.ours_per_s),
            if row.floor_per_s == 0 { "-".to_owned() } else { format!("{:.2}", row.ratio) },
            row.loop_per_s.map_or_else(|| "-".to_owned(), rate),
            pair(row.server_us, row.floor_server_us),
            pair(row.client_us, row.floor_client_us),
            number(row.bytes, 0),
            pair(row.p50_ms, row.floor_p50_ms),
            number(row.p99_ms, 2),
            pair(row.wake_p50_ms, row.wake_p99_ms),
        );
    }
    lines
}
