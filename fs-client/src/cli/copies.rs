//! [`Copies`]: files that an upload or a download copies at the same time.

use tokio::task::JoinSet;

use super::failure::Failure;

/// Copies under way; dropping it ends them.
pub(super) type Copies = JoinSet<Result<(), Failure>>;

/// Waits until no more than `most` copies are under way; ends with the first that fails.
pub(super) async fn finish(copies: &mut Copies, most: usize) -> Result<(), Failure> {
    while copies.len() > most {
        match copies.join_next().await {
            Some(Ok(result)) => result?,
            Some(Err(error)) => return Err(Failure::new(format!("a copy ended early: {error}"))),
            None => return Ok(()),
        }
    }
    Ok(())
}
