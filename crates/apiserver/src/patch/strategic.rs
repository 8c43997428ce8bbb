use serde_json::Value;
use thiserror::Error;

use crate::schema::Schema;

#[derive(Debug, Error)]
pub enum StrategicError {}

pub fn apply(_schema: &Schema, mut object: Value, patch: &Value) -> Result<Value, StrategicError> {
    json_patch::merge(&mut object, patch);
    Ok(object)
}
