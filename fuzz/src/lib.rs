//! What the fuzz targets share: how an input is taken apart, and the rules stated a second time.

pub mod input;
pub mod plain;
