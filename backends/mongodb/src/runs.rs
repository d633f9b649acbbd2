//! Renewing runs, and what a token means to the lane that it names.

use crate::MongoStorage;
use crate::lanes::{Lane, held_by, micros, now as now_expression};
use futures_util::future::try_join_all;
use mongodb::bson::doc;
use mongodb::options::ReturnDocument;
use pillarbox_core::{Error, Outcome, Renewed, Timestamp, Token};
use std::time::Duration;

impl MongoStorage {
    pub(crate) async fn renew_runs(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        try_join_all(tokens.iter().map(|token| self.renew_run(*token, lease))).await
    }

    async fn renew_run(&self, token: Token, lease: Duration) -> Result<Renewed, Error> {
        let map = |failure| self.map(failure, "renew");
        let now = now_expression(self.0.config.clock_offset());
        let until = doc! { "$max": ["$until", { "$add": [now.clone(), micros(lease)] }] };
        let update = vec![doc! { "$set": {
            "version": { "$add": ["$version", 1_i64] },
            "until": until,
            "renewed": true,
            "at": now,
        } }];
        let renewed = self
            .0
            .lanes
            .find_one_and_update(held_by(&token), update)
            .projection(doc! { "until": 1, "at": 1 })
            .return_document(ReturnDocument::After)
            .await
            .map_err(map)?;
        if let Some(renewed) = renewed {
            let time = |name| renewed.get_i64(name).map(Timestamp::from_micros).unwrap_or_default();
            return Ok(Renewed {
                outcome: Outcome::Applied,
                at: time("at"),
                lease_until: Some(time("until")),
            });
        }
        let (outcome, at) = self.standing(&token, "renew").await?;
        Ok(Renewed { outcome, at, lease_until: None })
    }

    /// How a token stands that is not current.
    async fn standing(&self, token: &Token, operation: &'static str) -> Result<(Outcome, Timestamp), Error> {
        let number = u16::try_from(token.unit).unwrap_or(u16::MAX);
        let lane = self.whole_lanes(&[number], operation).await?.into_iter().next();
        let Some(lane) = lane else {
            return Ok((Outcome::Fenced, self.server_time(operation).await?));
        };
        let outcome = if lane.was_settled_by(token) { Outcome::AlreadyApplied } else { Outcome::Fenced };
        Ok((outcome, self.time_of(&lane)))
    }

    pub(crate) fn time_of(&self, lane: &Lane) -> Timestamp {
        Timestamp::from_micros(lane.now.saturating_add(self.0.config.clock_offset()))
    }

    /// The server's time, where no lane tells it.
    pub(crate) async fn server_time(&self, operation: &'static str) -> Result<Timestamp, Error> {
        let lanes = self.whole_lanes(&[0], operation).await?;
        Ok(lanes.first().map(|lane| self.time_of(lane)).unwrap_or_default())
    }
}
