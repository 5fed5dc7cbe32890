//! A query's words.

use super::QueryError;

/// A word of a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A path, a field, a keyword, a number, a span of time, or a text without quotes.
    Word(String),
    /// A text in quotes.
    Text(String),
    /// `= != < <= > >= ^=`
    Compare(&'static str),
    Open,
    Close,
    Comma,
}

/// A word and the character that it begins with, counted from 1.
pub(super) type Placed = (Token, usize);

const COMPARISONS: [&str; 7] = ["!=", "<=", ">=", "^=", "=", "<", ">"];

/// Splits a text into words.
pub(super) fn split(text: &str) -> Result<Vec<Placed>, QueryError> {
    let letters: Vec<char> = text.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(letter) = letters.get(at) {
        let began = at + 1;
        let token = match letter {
            letter if letter.is_whitespace() => {
                at += 1;
                continue;
            }
            '(' | ')' | ',' => {
                at += 1;
                match letter {
                    '(' => Token::Open,
                    ')' => Token::Close,
                    _ => Token::Comma,
                }
            }
            '"' | '\'' => quoted(&letters, &mut at)?,
            letter if is_of_word(*letter) => {
                let rest = letters[at..].iter();
                let word: String = rest.take_while(|letter| is_of_word(**letter)).collect();
                at += word.chars().count();
                Token::Word(word)
            }
            letter => {
                let begins = |comparison: &&&str| {
                    let mut rest = letters[at..].iter();
                    comparison.chars().all(|wanted| rest.next() == Some(&wanted))
                };
                let found = COMPARISONS.iter().find(begins);
                let what = || format!("{letter:?} means nothing");
                let found = found.ok_or_else(|| QueryError { at: began, what: what() })?;
                at += found.len();
                Token::Compare(found)
            }
        };
        tokens.push((token, began));
    }
    Ok(tokens)
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || "/_-.:+*@%".contains(letter)
}

/// A text in quotes; a backslash takes the next letter as it is.
fn quoted(letters: &[char], at: &mut usize) -> Result<Token, QueryError> {
    let (began, quote) = (*at + 1, letters[*at]);
    let mut text = String::new();
    *at += 1;
    loop {
        let letter = letters.get(*at).copied();
        *at += 1;
        match letter {
            Some('\\') if *at < letters.len() => {
                text.push(letters[*at]);
                *at += 1;
            }
            Some(letter) if letter == quote => return Ok(Token::Text(text)),
            Some(letter) => text.push(letter),
            None => {
                return Err(QueryError { at: began, what: "a quote has no end".into() });
            }
        }
    }
}
