//! When a location that failed has its next turn without being asked for.
//!
//! Pauses double from failure to failure and end after [`MAX_RETRIES`]: a controller that knows no
//! full sync must not cost the engine a freeze for ever. Success forgets the failures.

use std::time::Duration;

use kvatlas_protocol::{Location, Timestamp};

/// Failures in a row after which a location is begun again only when asked for. With pauses of 2 to
/// 256 s (`retry_delay` 1 s) that is eight minutes of a controller that does not want it.
pub const MAX_RETRIES: u32 = 8;

/// The locations that failed since their last success.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failed: Vec<Failed>,
    /// Added to every pause; the random delay of the run, so that a fleet does not come at once.
    spread: Duration,
}

#[derive(Debug)]
struct Failed {
    location: Location,
    /// In a row.
    times: u32,
    /// `None` while it has its turn, and when it must be asked for.
    retry_at: Option<Timestamp>,
}

impl Retries {
    pub(super) fn set_spread(&mut self, spread: Duration) {
        self.spread = spread;
    }

    /// `location` failed, or was not tried because nobody was there; how often in a row. With `wanted` its next turn comes however often that
    /// was.
    pub(super) fn handle_failed(
        &mut self,
        location: &Location,
        first_pause: Duration,
        wanted: bool,
        now: Timestamp,
    ) -> u32 {
        let spread = self.spread;
        let failed = self.entry(location);
        failed.times = failed.times.saturating_add(1);
        let exponent = failed.times.min(MAX_RETRIES) - 1;
        failed.retry_at = (failed.times <= MAX_RETRIES || wanted)
            .then(|| now + first_pause * (1 << exponent) + spread);
        failed.times
    }

    /// `location` has a turn.
    pub(super) fn handle_turn(&mut self, location: &Location) {
        if let Some(failed) = self.failed.iter_mut().find(|f| f.location == *location) {
            failed.retry_at = None;
        }
    }

    /// These are done: their failures are forgotten.
    pub(super) fn forget(&mut self, done: &[Location]) {
        self.failed
            .retain(|failed| !done.contains(&failed.location));
    }

    /// All whose turn has come.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Location> {
        let due = self
            .failed
            .iter()
            .filter(|f| f.retry_at.is_some_and(|at| at <= now));
        due.map(|failed| failed.location.clone()).collect()
    }

    /// When the next turn comes.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.failed.iter().filter_map(|f| f.retry_at).min()
    }

    fn entry(&mut self, location: &Location) -> &mut Failed {
        let at = self.failed.iter().position(|f| f.location == *location);
        let at = at.unwrap_or_else(|| {
            self.failed.push(Failed {
                location: location.clone(),
                times: 0,
                retry_at: None,
            });
            self.failed.len() - 1
        });
        &mut self.failed[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pause(retries: &mut Retries, wanted: bool) -> Option<u64> {
        let cpu = Location::from("cpu");
        retries.handle_failed(&cpu, 2 * SECOND, wanted, Timestamp(0));
        retries
            .deadline()
            .map(|at| at.since(Timestamp(0)).as_secs())
    }

    #[test]
    fn pauses_double_and_end_unless_it_is_wanted() {
        let mut retries = Retries::default();
        let pauses: Vec<_> = (0..9).map(|_| pause(&mut retries, false)).collect();
        let expected = [2, 4, 8, 16, 32, 64, 128, 256].map(Some);
        assert_eq!(pauses[..8], expected);
        assert_eq!(pauses[8], None);
        assert_eq!(pause(&mut retries, true), Some(256));
        retries.forget(&["cpu".into()]);
        retries.set_spread(SECOND);
        assert_eq!(pause(&mut retries, false), Some(3));
    }

    #[test]
    fn each_location_has_its_own_turn_and_a_turn_is_no_deadline() {
        let (cpu, disk) = (Location::from("cpu"), Location::from("disk"));
        let mut retries = Retries::default();
        retries.handle_failed(&cpu, SECOND, false, Timestamp(0));
        retries.handle_failed(&disk, 2 * SECOND, false, Timestamp(0));
        assert_eq!(retries.due(Timestamp(0)), []);
        let at = retries.deadline().unwrap();
        assert_eq!(retries.due(at), std::slice::from_ref(&cpu));
        assert_eq!(retries.due(at + SECOND), [cpu.clone(), disk.clone()]);
        retries.handle_turn(&cpu);
        assert_eq!(retries.due(at + SECOND), std::slice::from_ref(&disk));
        retries.handle_turn(&disk);
        assert_eq!(retries.deadline(), None);
    }
}
