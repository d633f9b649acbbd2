use super::model::Standing;
use super::{Checker, Rule};

impl Checker<'_> {
    /// What must hold once everything is over.
    pub(super) fn end(&mut self) {
        let end = &self.history.end;
        let mut open = Vec::new();
        for number in 0..u32::try_from(self.model.messages.len()).unwrap_or(u32::MAX) {
            let message = &self.model.messages[number as usize];
            if !message.was_committed {
                continue;
            }
            let acknowledged = self.model.is_acknowledged(number);
            let (deliveries, standing) = (u64::from(message.deliveries), message.standing);
            let (doubtful, discarded, copies) = (message.is_doubtful, message.is_discarded, message.copies);
            let is_listed = end.dead.binary_search(&number).is_ok();
            let is_dead =
                standing == Standing::Dead || is_listed || discarded || self.model.may_be_dead(number);
            let totals = &mut self.checked.totals;
            totals.attempted += 1;
            totals.acknowledged += u64::from(acknowledged);
            totals.delivered += u64::from(deliveries > 0);
            totals.duplicated += deliveries.saturating_sub(1);
            totals.recovered += u64::from(deliveries > 0 && !acknowledged);
            self.checked.situations.duplicated += deliveries.saturating_sub(1);
            self.checked.situations.recovered += u64::from(deliveries > 0 && !acknowledged);
            self.checked.situations.enqueued_twice += u64::from(copies > 1);
            if self.has_spun {
                continue;
            }
            if standing == Standing::Open && acknowledged && !is_dead {
                open.push(number);
            }
            let is_lost = acknowledged && deliveries == 0 && !is_dead;
            let is_lost = is_lost && !(doubtful && is_listed);
            self.checked.totals.lost += u64::from(is_lost);
            if is_lost && (end.remaining == 0 || standing == Standing::Published) {
                self.violate(Rule::Lost, Some(number), || {
                    "it was acknowledged, and is neither delivered nor dead nor stored".to_owned()
                });
            }
            if standing == Standing::Dead && !is_listed && !discarded && !doubtful {
                self.violate(Rule::Lost, Some(number), || "it was a dead letter, and is gone".to_owned());
            }
            if standing == Standing::Open
                && deliveries > 0
                && acknowledged
                && end.remaining == 0
                && !is_dead
                && !doubtful
            {
                self.violate(Rule::Lost, Some(number), || {
                    "it was never settled, and the store does not have it any more".to_owned()
                });
            }
            if is_listed && standing != Standing::Dead && !self.model.may_be_dead(number) {
                self.violate(Rule::Burial, Some(number), || {
                    "it is dead, and neither a verdict nor its strikes have buried it".to_owned()
                });
            }
        }
        if end.remaining > 0 && !self.has_spun {
            let first = open.first().copied();
            self.violate(Rule::Stuck, first, || {
                let count = self.history.end.remaining;
                format!("{count} messages are still stored, among them {open:?}")
            });
        }
    }
}
