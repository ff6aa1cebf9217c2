//! What agents answered, as the store's types.

use streamhouse_core::ErrorKind;
use streamhouse_metadata::{MetadataError, Result};
use streamhouse_proto::convert::{self, Malformed};

/// A list with one item for each that was asked for.
///
/// # Errors
///
/// `Corrupt` when it has more or fewer, or one of them means nothing.
pub(super) fn one_each<M, T: TryFrom<M, Error = Malformed>>(
    messages: Vec<M>,
    asked: usize,
) -> Result<Vec<T>> {
    if messages.len() != asked {
        return Err(MetadataError::Remote {
            kind: ErrorKind::Corrupt,
            message: format!(
                "an agent answered for {} when {asked} were asked for; see that client and agent are of one version",
                messages.len()
            ),
        });
    }
    Ok(convert::list(messages)?)
}

/// One item.
///
/// # Errors
///
/// `Corrupt` when it means nothing.
pub(super) fn one<M, T: TryFrom<M, Error = Malformed>>(message: M) -> Result<T> {
    Ok(T::try_from(message)?)
}
