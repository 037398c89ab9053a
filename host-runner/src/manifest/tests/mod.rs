//! What a manifest's author sees: cases from good text, and for every mistake its place and words.

mod good;
mod try_it;
