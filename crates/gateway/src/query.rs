//! What stands behind the `?` of an address.

use actix_web::error::QueryPayloadError;
use actix_web::{HttpRequest, web};
use fault::Fault;
use serde::de::DeserializeOwned;

use crate::problem::unreadable;

/// The values of the address, in the handler and not before it: what is wrong is then answered and logged like everything else.
///
/// # Errors
/// InvalidInput that says why: a key that is not known, one that is there twice, a value that is not allowed.
pub(crate) fn read<Q: DeserializeOwned>(request: &HttpRequest) -> Result<Q, Fault> {
    let query = web::Query::<Q>::from_query(request.query_string());
    query.map(web::Query::into_inner).map_err(|error| match &error {
        QueryPayloadError::Deserialize(reason) => unreadable("the query", reason),
        other => unreadable("the query", other),
    })
}
