//! The parameters of a request.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::error::ApiError;

/// What to do with fields that a schema does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and tell the client.
    Warn,
    /// Refuse the object.
    Strict,
}

/// The query of a request; of a repeated parameter, the first counts.
#[derive(Clone, Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads the part of a URL after the question mark.
    pub fn parse(query: &str) -> Self {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            parameters
                .entry(name.into_owned())
                .or_insert_with(|| value.into_owned());
        }
        Self(parameters)
    }

    /// A parameter; empty when it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A parameter that is on or off.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "1" | "t" | "true" | "True")
    }

    /// A parameter that is a number.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::BadRequest(format!(
                    "invalid value {text:?} of parameter {name}: not a number"
                ))
            }),
        }
    }

    /// Whether nothing may be changed.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        match self.text("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(ApiError::BadRequest(format!(
                "invalid value {other:?} of parameter dryRun: the only value is \"All\""
            ))),
        }
    }

    /// How strict the client wants unknown fields taken.
    pub fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.text("fieldValidation") {
            "Ignore" => Ok(FieldValidation::Ignore),
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Strict" => Ok(FieldValidation::Strict),
            other => Err(ApiError::BadRequest(format!(
                "invalid value {other:?} of parameter fieldValidation: must be Ignore, Warn or Strict"
            ))),
        }
    }
}
