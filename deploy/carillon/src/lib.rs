//! carillon
