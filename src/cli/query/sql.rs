//! `actrace-query sql`: any query.

use super::output::Output;
use super::{Opening, follow};
use crate::error::Result;

/// Answer a SQL query
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  actrace-query sql \"SELECT label, status FROM runs\" runs.actrace --format csv")]
pub struct Sql {
    /// The query; it can only read
    query: String,
    #[command(flatten)]
    opening: Opening,
    #[command(flatten)]
    output: Output,
}

impl Sql {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        self.output.check(&self.opening.files)?;
        follow::answer(&self.opening, &self.output, async |session| session.query(&self.query, &[]).await)?;
        Ok(0)
    }
}
