//! Values of leaves.

use std::cmp::Ordering;

use data_encoding::BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};

use crate::canonical::Writer;

/// The most bytes that the text, byte string or list of one leaf may take.
pub const VALUE_BYTES_MAX: usize = 16 << 10;

/// The key that marks a byte string in JSON, which has none of its own.
const JSON_BYTES_KEY: &str = "$bytes";

/// A leaf's value: a scalar or a flat list of scalars. Structure lives in paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// One scalar.
    Scalar(Scalar),
    /// A list of scalars, in order.
    List(Vec<Scalar>),
}

/// One indivisible value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number that is neither NaN nor infinite.
    Float(Finite),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A finite floating-point number, with `-0` made `0`: equal numbers have equal bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finite(f64);

/// Something that cannot be a leaf's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// NaN or an infinity.
    #[error("number is not finite")]
    NotFinite,
    /// More than [`VALUE_BYTES_MAX`].
    #[error("value takes {bytes} bytes, the limit is {VALUE_BYTES_MAX}")]
    TooLarge {
        /// What it takes.
        bytes: usize,
    },
    /// JSON that has no counterpart here: null, an object, or a list in a list.
    #[error("{found} is no leaf value; use paths for structure")]
    Unsupported {
        /// What was found.
        found: &'static str,
    },
    /// A whole number beyond 64 bits.
    #[error("number does not fit 64 bits")]
    NumberRange,
}

impl Finite {
    /// Checks a number.
    pub fn new(number: f64) -> Result<Self, ValueError> {
        if !number.is_finite() {
            return Err(ValueError::NotFinite);
        }
        // Adding zero turns -0 into 0 and leaves every other number as it is.
        Ok(Self(number + 0.0))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Eq for Finite {}

impl Ord for Finite {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Finite {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Value {
    /// A floating-point value.
    pub fn float(number: f64) -> Result<Self, ValueError> {
        Finite::new(number).map(|finite| Self::Scalar(Scalar::Float(finite)))
    }

    /// The value as a number, when it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Scalar(Scalar::Float(finite)) => Some(finite.get()),
            Self::Scalar(Scalar::Int(int)) => Some(*int as f64),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Scalar(Scalar::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// The value as text, when it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Scalar(Scalar::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The bytes that the value takes, counted for limits.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.size_bytes(),
            Self::List(items) => items.iter().map(|item| item.size_bytes() + 1).sum(),
        }
    }

    /// Refuses a value over [`VALUE_BYTES_MAX`].
    pub fn check(&self) -> Result<(), ValueError> {
        match self.size_bytes() {
            bytes if bytes > VALUE_BYTES_MAX => Err(ValueError::TooLarge { bytes }),
            _ => Ok(()),
        }
    }

    /// Reads JSON: scalars, flat lists, and `{"$bytes": "<base64>"}`.
    pub fn from_json(json: &Json) -> Result<Self, ValueError> {
        let value = match json {
            Json::Array(items) => {
                Self::List(items.iter().map(Scalar::from_json).collect::<Result<_, _>>()?)
            }
            other => Self::Scalar(Scalar::from_json(other)?),
        };
        value.check()?;
        Ok(value)
    }

    /// The value as JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Scalar(scalar) => scalar.to_json(),
            Self::List(items) => Json::Array(items.iter().map(Scalar::to_json).collect()),
        }
    }

    /// Adds the value to canonical bytes.
    pub fn write_canonical(&self, writer: &mut Writer) {
        match self {
            Self::Scalar(scalar) => scalar.write_canonical(writer),
            Self::List(items) => {
                writer.u8(6).len(items.len());
                for item in items {
                    item.write_canonical(writer);
                }
            }
        }
    }
}

impl Scalar {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    fn from_json(json: &Json) -> Result<Self, ValueError> {
        let unsupported = |found| Err(ValueError::Unsupported { found });
        match json {
            Json::Bool(bool) => Ok(Self::Bool(*bool)),
            Json::String(text) => Ok(Self::Text(text.clone())),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => Ok(Self::Int(int)),
                (None, _) if number.is_u64() => Err(ValueError::NumberRange),
                (None, Some(float)) => Finite::new(float).map(Self::Float),
                (None, None) => Err(ValueError::NumberRange),
            },
            Json::Object(object) => match object.get(JSON_BYTES_KEY) {
                Some(Json::String(text)) if object.len() == 1 => BASE64
                    .decode(text.as_bytes())
                    .map(Self::Bytes)
                    .map_err(|_| ValueError::Unsupported { found: "text that is not base64" }),
                _ => unsupported("an object"),
            },
            Json::Array(_) => unsupported("a list inside a list"),
            Json::Null => unsupported("null"),
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Bool(bool) => json!(bool),
            Self::Int(int) => json!(int),
            Self::Float(finite) => json!(finite.get()),
            Self::Text(text) => json!(text),
            Self::Bytes(bytes) => json!({ JSON_BYTES_KEY: BASE64.encode(bytes) }),
        }
    }

    fn write_canonical(&self, writer: &mut Writer) {
        match self {
            Self::Bool(bool) => writer.u8(1).u8(u8::from(*bool)),
            Self::Int(int) => writer.u8(2).u64(*int as u64),
            Self::Float(finite) => writer.u8(3).u64(finite.get().to_bits()),
            Self::Text(text) => writer.u8(4).text(text),
            Self::Bytes(bytes) => writer.u8(5).bytes(bytes),
        };
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Self {
        Self::Scalar(Scalar::Bool(bool))
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Scalar(Scalar::Int(int))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Scalar(Scalar::Text(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Scalar(Scalar::Text(text))
    }
}

/// The value in the binary codec: one tag, no nesting, so that no input makes it recurse.
#[derive(Serialize, Deserialize)]
enum Repr {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    #[serde(with = "byte_string")]
    Bytes(Vec<u8>),
    List(Vec<ScalarRepr>),
}

#[derive(Serialize, Deserialize)]
enum ScalarRepr {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    #[serde(with = "byte_string")]
    Bytes(Vec<u8>),
}

mod byte_string {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        // A byte string and a sequence of bytes are the same bytes in the codec.
        Vec::<u8>::deserialize(d)
    }
}

impl From<&Scalar> for ScalarRepr {
    fn from(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Bool(bool) => Self::Bool(*bool),
            Scalar::Int(int) => Self::Int(*int),
            Scalar::Float(finite) => Self::Float(finite.get()),
            Scalar::Text(text) => Self::Text(text.clone()),
            Scalar::Bytes(bytes) => Self::Bytes(bytes.clone()),
        }
    }
}

impl TryFrom<ScalarRepr> for Scalar {
    type Error = ValueError;

    fn try_from(repr: ScalarRepr) -> Result<Self, ValueError> {
        Ok(match repr {
            ScalarRepr::Bool(bool) => Self::Bool(bool),
            ScalarRepr::Int(int) => Self::Int(int),
            ScalarRepr::Float(float) => Self::Float(Finite::new(float)?),
            ScalarRepr::Text(text) => Self::Text(text),
            ScalarRepr::Bytes(bytes) => Self::Bytes(bytes),
        })
    }
}

impl From<&Value> for Repr {
    fn from(value: &Value) -> Self {
        match value {
            Value::List(items) => Self::List(items.iter().map(ScalarRepr::from).collect()),
            Value::Scalar(scalar) => match ScalarRepr::from(scalar) {
                ScalarRepr::Bool(bool) => Self::Bool(bool),
                ScalarRepr::Int(int) => Self::Int(int),
                ScalarRepr::Float(float) => Self::Float(float),
                ScalarRepr::Text(text) => Self::Text(text),
                ScalarRepr::Bytes(bytes) => Self::Bytes(bytes),
            },
        }
    }
}

impl TryFrom<Repr> for Value {
    type Error = ValueError;

    fn try_from(repr: Repr) -> Result<Self, ValueError> {
        let scalar = match repr {
            Repr::Bool(bool) => ScalarRepr::Bool(bool),
            Repr::Int(int) => ScalarRepr::Int(int),
            Repr::Float(float) => ScalarRepr::Float(float),
            Repr::Text(text) => ScalarRepr::Text(text),
            Repr::Bytes(bytes) => ScalarRepr::Bytes(bytes),
            Repr::List(items) => {
                let items: Result<_, _> = items.into_iter().map(Scalar::try_from).collect();
                return items.map(Self::List);
            }
        };
        Scalar::try_from(scalar).map(Self::Scalar)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.to_json().serialize(serializer)
        } else {
            Repr::from(self).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = if deserializer.is_human_readable() {
            Value::from_json(&Json::deserialize(deserializer)?)
        } else {
            Value::try_from(Repr::deserialize(deserializer)?)
        };
        let value = value.map_err(D::Error::custom)?;
        value.check().map_err(D::Error::custom)?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_zero_is_zero() {
        assert_eq!(Value::float(-0.0), Value::float(0.0));
        let bits = Finite::new(-0.0).expect("finite").get().to_bits();
        assert_eq!(bits, 0);
    }

    #[test]
    fn nan_is_no_value_in_either_encoding() {
        assert_eq!(Value::float(f64::NAN), Err(ValueError::NotFinite));
        let bytes = crate::codec::encode(&Repr::Float(f64::NAN));
        assert!(crate::codec::decode::<Value>(&bytes).is_err());
    }

    #[test]
    fn json_without_a_counterpart_is_named() {
        let found = |text: &str| {
            let json = serde_json::from_str(text).expect("valid JSON");
            Value::from_json(&json).expect_err("unsupported")
        };
        assert_eq!(found("null"), ValueError::Unsupported { found: "null" });
        assert_eq!(found("[[1]]"), ValueError::Unsupported { found: "a list inside a list" });
        assert_eq!(found("{\"a\":1}"), ValueError::Unsupported { found: "an object" });
        assert_eq!(found("18446744073709551615"), ValueError::NumberRange);
    }

    proptest::proptest! {
        /// A state that was read over the API can be saved again only if nothing in it moved.
        #[test]
        fn every_number_survives_json(bits in proptest::num::u64::ANY, int in proptest::num::i64::ANY) {
            for value in [Value::float(f64::from_bits(bits)), Ok(Value::from(int))] {
                let Ok(value) = value else { continue };
                let json = serde_json::to_string(&value).expect("serialises");
                assert_eq!(serde_json::from_str::<Value>(&json).expect("parses"), value, "{json}");
            }
        }
    }

    #[test]
    fn values_survive_json_and_the_codec() {
        let values = [
            Value::from(true),
            Value::from(-3i64),
            Value::float(51.25).expect("finite"),
            Value::from("text"),
            Value::Scalar(Scalar::Bytes(vec![0, 255])),
            Value::List(vec![Scalar::Int(1), Scalar::Text("b".into())]),
        ];
        for value in values {
            let json = serde_json::to_string(&value).expect("serialises");
            assert_eq!(serde_json::from_str::<Value>(&json).expect("parses"), value);
            let bytes = crate::codec::encode(&value);
            assert_eq!(crate::codec::decode::<Value>(&bytes).expect("decodes"), value);
        }
    }
}
