//! Lanes: what relays lease.

use crate::dialect::{Argument, Dialect};
use crate::layout::{decode_run, encode_run, in_list};
use crate::session::{Session, arguments};
use pillarbox_core::{Nonce, Outcome, Run, Timestamp, Token};

/// The columns of a lane, as [`Lane::read`] expects them.
pub(crate) const COLUMNS: &str = "lane, fence, nonce, claimed_at, lease_until, not_before, solo, renewed, run_length, run, settled_fence, settled_nonce";

/// The place of what is asked beside them.
pub(crate) const BESIDE: usize = 12;

/// A row of the table of lanes, locked by this transaction.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) lane: i64,
    pub(crate) fence: i64,
    /// The fence that is stored.
    stored_fence: i64,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) claimed_at: i64,
    pub(crate) lease_until: i64,
    pub(crate) not_before: i64,
    pub(crate) solo: bool,
    pub(crate) renewed: bool,
    pub(crate) run: Vec<i64>,
    pub(crate) settled_fence: Option<i64>,
    settled_nonce: Option<Nonce>,
}

impl Lane {
    pub(crate) fn read<D: Dialect>(row: &D::Row) -> Result<Self, sqlx::Error> {
        let int = |column| Ok::<_, sqlx::Error>(D::int(row, column)?.unwrap_or_default());
        let nonce = |column| -> Result<Option<Nonce>, sqlx::Error> {
            let bytes = D::bytes(row, column)?.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            Ok(bytes.map(Nonce::from_bytes))
        };
        Ok(Self {
            lane: int(0)?,
            fence: int(1)?,
            stored_fence: int(1)?,
            nonce: nonce(2)?,
            claimed_at: int(3)?,
            lease_until: int(4)?,
            not_before: int(5)?,
            solo: int(6)? != 0,
            renewed: int(7)? != 0,
            run: decode_run(&D::bytes(row, 9)?.unwrap_or_default()),
            settled_fence: D::int(row, 10)?,
            settled_nonce: nonce(11)?,
        })
    }

    pub(crate) fn read_all<D: Dialect>(rows: &[D::Row]) -> Result<Vec<Self>, sqlx::Error> {
        rows.iter().map(Self::read::<D>).collect()
    }

    /// How a token stands: `Applied` says that it is current.
    pub(crate) fn standing(&self, token: &Token) -> Outcome {
        let fence = i64::try_from(token.fence).ok();
        if self.nonce == Some(token.nonce) && Some(self.fence) == fence {
            Outcome::Applied
        } else if self.settled_nonce == Some(token.nonce) && self.settled_fence == fence {
            Outcome::AlreadyApplied
        } else {
            Outcome::Fenced
        }
    }

    /// Notes that its run was settled, and that it is free.
    pub(crate) fn settled(&mut self, not_before: i64) {
        self.settled_fence = Some(self.fence);
        self.settled_nonce = self.nonce.take();
        self.not_before = not_before;
        self.run.clear();
    }

    /// The run that it holds, as an answer that begins at `start`.
    pub(crate) fn as_run(&self, start: usize) -> Option<Run> {
        let nonce = self.nonce?;
        Some(Run {
            token: Token { unit: self.lane.cast_unsigned(), fence: self.fence.cast_unsigned(), nonce },
            claimed_at: Timestamp::from_micros(self.claimed_at),
            lease_until: Timestamp::from_micros(self.lease_until),
            start: u32::try_from(start).unwrap_or(u32::MAX),
            len: u32::try_from(self.run.len()).unwrap_or(u32::MAX),
        })
    }

    /// Stores a claim.
    pub(crate) async fn store<D: Dialect>(&self, session: &mut Session<'_, D>) -> Result<(), sqlx::Error> {
        let Some(nonce) = self.nonce else { return self.store_free(session).await };
        let length = i64::try_from(self.run.len()).unwrap_or(i64::MAX);
        session
            .execute(
                "UPDATE {lane} SET fence = ?, nonce = ?, claimed_at = ?, lease_until = ?, not_before = 0, solo = ?, renewed = 0, run_length = ?, run = ? WHERE lane = ? AND fence = ?",
                arguments![
                    self.fence,
                    &nonce.as_bytes()[..],
                    self.claimed_at,
                    self.lease_until,
                    i64::from(self.solo),
                    length,
                    &encode_run(self.run.iter().copied())[..],
                    self.lane,
                    self.stored_fence,
                ],
            )
            .await?;
        Ok(())
    }

    /// Stores that nobody holds it.
    pub(crate) async fn store_free<D: Dialect>(
        &self,
        session: &mut Session<'_, D>,
    ) -> Result<(), sqlx::Error> {
        session
            .execute(
                "UPDATE {lane} SET nonce = NULL, run = NULL, run_length = 0, not_before = ? WHERE lane = ? AND fence = ?",
                arguments![self.not_before, self.lane, self.stored_fence],
            )
            .await?;
        Ok(())
    }
}

/// The condition that rows are those of these lanes, which were read with these fences, and its arguments.
pub(crate) fn among<D: Dialect>(lanes: &[(i64, i64)]) -> (String, Vec<Argument>) {
    let (lanes, fences): (Vec<i64>, Vec<i64>) = lanes.iter().copied().unzip();
    match D::HAS_ARRAYS {
        // Any of the fences: no lane has two rows.
        true => (
            "lane = ANY(?::bigint[]) AND fence = ANY(?::bigint[])".to_owned(),
            vec![Argument::Ints(lanes), Argument::Ints(fences)],
        ),
        false => (format!("lane IN ({})", in_list(&lanes)), Vec::new()),
    }
}

/// The unit of a token as the number of a lane, if it can be one.
pub(crate) fn number(token: &Token) -> Option<i64> {
    i64::try_from(token.unit).ok().filter(|lane| *lane < crate::layout::LANES)
}
