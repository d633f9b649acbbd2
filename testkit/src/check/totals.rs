use std::fmt;

/// The totals of one run or of many, as Jepsen's total-queue checker reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    /// Messages whose commit was asked for.
    pub attempted: u64,
    /// Messages whose producer learned that they are committed.
    pub acknowledged: u64,
    /// Messages that were delivered.
    pub delivered: u64,
    /// Deliveries beyond a message's first.
    pub duplicated: u64,
    /// Delivered messages whose producer never learned that they are committed.
    pub recovered: u64,
    /// Acknowledged messages that were neither delivered nor buried by the rules. Must be 0.
    pub lost: u64,
    /// Deliveries of messages that nobody meant to commit. Must be 0.
    pub unexpected: u64,
}

impl Totals {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.duplicated += other.duplicated;
        self.recovered += other.recovered;
        self.lost += other.lost;
        self.unexpected += other.unexpected;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempted, acknowledged, delivered, duplicated, recovered, lost, unexpected } = self;
        write!(
            formatter,
            "attempted {attempted} acknowledged {acknowledged} delivered {delivered} duplicated {duplicated} \
             recovered {recovered} lost {lost} unexpected {unexpected}"
        )
    }
}
