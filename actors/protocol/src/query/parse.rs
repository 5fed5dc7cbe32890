//! From words to conditions: descent by precedence.

use super::token::{Placed, Token, split};
use super::{Comparison, Condition, Literal, Operand, QUERY_DEPTH_MAX, QueryError};
use crate::state::{Finite, Path, Scalar};

/// Reads a condition.
pub(super) fn parse(text: &str) -> Result<Condition, QueryError> {
    let end = text.chars().count() + 1;
    let mut parser = Parser { tokens: split(text)?, next: 0, end, depth: 0 };
    let condition = parser.any_of()?;
    match parser.peek() {
        None => Ok(condition),
        Some(_) => Err(parser.expected("and, or, or the end")),
    }
}

struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn any_of(&mut self) -> Result<Condition, QueryError> {
        let mut parts = vec![self.all_of()?];
        while self.take_word("or") {
            parts.push(self.all_of()?);
        }
        Ok(one_or(parts, Condition::Or))
    }

    fn all_of(&mut self) -> Result<Condition, QueryError> {
        let mut parts = vec![self.unary()?];
        while self.take_word("and") {
            parts.push(self.unary()?);
        }
        Ok(one_or(parts, Condition::And))
    }

    fn unary(&mut self) -> Result<Condition, QueryError> {
        if self.depth == QUERY_DEPTH_MAX {
            let what = format!("a query is nested deeper than {QUERY_DEPTH_MAX}");
            return Err(QueryError { at: self.at(), what });
        }
        self.depth += 1;
        let condition = if self.take_word("not") {
            Condition::Not(Box::new(self.unary()?))
        } else if self.take(&Token::Open) {
            let inside = self.any_of()?;
            self.need(&Token::Close, "a closing bracket")?;
            inside
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn test(&mut self) -> Result<Condition, QueryError> {
        if self.take_word("has") {
            return Ok(Condition::Has(self.path()?));
        }
        if self.take_word("age") {
            self.need(&Token::Open, "an opening bracket")?;
            let path = self.path()?;
            self.need(&Token::Close, "a closing bracket")?;
            let comparison = self.comparison()?;
            if matches!(comparison, Comparison::BeginsWith) {
                return Err(self.expected_before("a comparison of times"));
            }
            return Ok(Condition::Age(path, comparison, self.span()?));
        }
        let operand = self.operand()?;
        if self.take_word("in") {
            self.need(&Token::Open, "an opening bracket")?;
            let mut values = vec![self.literal()?];
            while self.take(&Token::Comma) {
                values.push(self.literal()?);
            }
            self.need(&Token::Close, "a comma or a closing bracket")?;
            return Ok(Condition::Test(operand, Comparison::Equal, values));
        }
        match self.peek() {
            Some(Token::Compare(_)) => {}
            // `online` alone says enough.
            _ if operand == Operand::Online => {
                let yes = Literal { text: "true".into(), scalar: Scalar::Bool(true) };
                return Ok(Condition::Test(operand, Comparison::Equal, vec![yes]));
            }
            _ => return Err(self.expected("a comparison such as = or in")),
        }
        let comparison = self.comparison()?;
        Ok(Condition::Test(operand, comparison, vec![self.literal()?]))
    }

    fn operand(&mut self) -> Result<Operand, QueryError> {
        let word = match self.peek() {
            Some(Token::Word(word)) => word.clone(),
            Some(Token::Text(_)) => return Ok(Operand::Leaf(self.path()?)),
            _ => return Err(self.expected("a path or a field")),
        };
        Ok(match word.as_str() {
            "id" => self.taken(Operand::Id),
            "name" => self.taken(Operand::Name),
            "online" => self.taken(Operand::Online),
            "group" => self.taken(Operand::Group),
            "version" => self.taken(Operand::Version),
            _ => Operand::Leaf(self.path()?),
        })
    }

    fn path(&mut self) -> Result<Path, QueryError> {
        let at = self.at();
        let text = match self.peek() {
            Some(Token::Word(text) | Token::Text(text)) => text.clone(),
            _ => return Err(self.expected("a path")),
        };
        let path = Path::new(&text);
        let path = path.map_err(|error| QueryError { at, what: format!("{text:?}: {error}") })?;
        if path.below(path.first_segment()).is_none() {
            let what =
                format!("{text:?} is no field, and a path has a slash, such as tags/{text};");
            return Err(QueryError { at, what });
        }
        Ok(self.taken(path))
    }

    fn comparison(&mut self) -> Result<Comparison, QueryError> {
        let comparison = match self.peek() {
            Some(Token::Compare("=")) => Comparison::Equal,
            Some(Token::Compare("!=")) => Comparison::NotEqual,
            Some(Token::Compare("<")) => Comparison::Less,
            Some(Token::Compare("<=")) => Comparison::LessOrEqual,
            Some(Token::Compare(">")) => Comparison::Greater,
            Some(Token::Compare(">=")) => Comparison::GreaterOrEqual,
            Some(Token::Compare("^=")) => Comparison::BeginsWith,
            _ => return Err(self.expected("a comparison")),
        };
        Ok(self.taken(comparison))
    }

    fn literal(&mut self) -> Result<Literal, QueryError> {
        let literal = match self.peek() {
            Some(Token::Text(text)) => {
                Literal { scalar: Scalar::Text(text.clone()), text: text.clone() }
            }
            Some(Token::Word(word)) => {
                let scalar = match word.as_str() {
                    "true" => Scalar::Bool(true),
                    "false" => Scalar::Bool(false),
                    "and" | "or" | "not" | "in" | "has" | "age" => {
                        return Err(self.expected("a value (in quotes, if that is one)"));
                    }
                    word => number(word).unwrap_or_else(|| Scalar::Text(word.to_owned())),
                };
                Literal { scalar, text: word.clone() }
            }
            _ => return Err(self.expected("a value")),
        };
        Ok(self.taken(literal))
    }

    /// A span of time in milliseconds.
    fn span(&mut self) -> Result<u64, QueryError> {
        const UNITS: [(&str, f64); 5] =
            [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3), ("d", 86_400e3)];
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.expected("a span of time, such as 10m"));
        };
        let span = UNITS.iter().find_map(|(unit, ms)| {
            let count: f64 = word.strip_suffix(unit)?.parse().ok()?;
            (count >= 0.0 && count.is_finite()).then_some(count * ms)
        });
        match span {
            Some(ms) => Ok(self.taken(ms as u64)),
            None => Err(self.expected("a span of time, such as 10m")),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    /// Goes on behind the word that `found` was read from.
    fn taken<T>(&mut self, found: T) -> T {
        self.next += 1;
        found
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == Some(wanted);
        self.next += usize::from(found);
        found
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word)) if word == wanted);
        self.next += usize::from(found);
        found
    }

    fn need(&mut self, wanted: &Token, what: &str) -> Result<(), QueryError> {
        if self.take(wanted) { Ok(()) } else { Err(self.expected(what)) }
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(_, at)| *at)
    }

    fn expected(&self, what: &str) -> QueryError {
        QueryError { at: self.at(), what: format!("expected {what}") }
    }

    fn expected_before(&self, what: &str) -> QueryError {
        let at = self.tokens.get(self.next.saturating_sub(1)).map_or(self.end, |(_, at)| *at);
        QueryError { at, what: format!("expected {what}") }
    }
}

fn number(word: &str) -> Option<Scalar> {
    let begins = word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let whole = word.parse().ok().map(Scalar::Int);
    let real = || Some(Scalar::Float(Finite::new(word.parse().ok()?).ok()?));
    if begins { whole.or_else(real) } else { None }
}

fn one_or(mut parts: Vec<Condition>, several: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.len() {
        1 => parts.remove(0),
        _ => several(parts),
    }
}
