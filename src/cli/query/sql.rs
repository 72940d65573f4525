//! `actrace-query sql`: any query.

use super::output::Output;
use super::{Opening, block_on};
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
        let session = self.opening.session()?;
        block_on(async {
            let answer = session.query(&self.query, &[]).await?;
            self.output.write(answer).await
        })?;
        Ok(0)
    }
}
