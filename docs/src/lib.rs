//! Compiles the book's code blocks.
