//! Durations as arguments.

use std::time::Duration;

/// Reads `30s`, `500ms`, `2m`, `1h`, or decimal seconds as the environment has them.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let seconds = || Duration::try_from_secs_f64(text.parse().ok()?).ok();
    pillarbox::parse_duration(text)
        .or_else(seconds)
        .ok_or_else(|| "a duration is written `30s`, `500ms`, `2m`, `1h`, or as decimal seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn both_ways_to_write_one() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1.5"), Ok(Duration::from_millis(1_500)));
        for wrong in ["", "-1", "NaN", "inf", "1 s", "1d", "1e300"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
