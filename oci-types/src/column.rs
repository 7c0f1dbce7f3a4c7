//! Database columns of validated types.

/// Reads and writes a validated text type as a text column.
macro_rules! text_column {
    ($type:ty) => {
        #[cfg(feature = "diesel")]
        impl<DB> ::diesel::serialize::ToSql<::diesel::sql_types::Text, DB> for $type
        where
            DB: ::diesel::backend::Backend,
            str: ::diesel::serialize::ToSql<::diesel::sql_types::Text, DB>,
        {
            fn to_sql<'b>(
                &'b self,
                out: &mut ::diesel::serialize::Output<'b, '_, DB>,
            ) -> ::diesel::serialize::Result {
                self.as_str().to_sql(out)
            }
        }

        #[cfg(feature = "diesel")]
        impl<DB> ::diesel::deserialize::FromSql<::diesel::sql_types::Text, DB> for $type
        where
            DB: ::diesel::backend::Backend,
            String: ::diesel::deserialize::FromSql<::diesel::sql_types::Text, DB>,
        {
            fn from_sql(bytes: DB::RawValue<'_>) -> ::diesel::deserialize::Result<Self> {
                Ok(Self::parse(&String::from_sql(bytes)?)?)
            }
        }
    };
}
pub(crate) use text_column;

/// Reads and writes an enumeration as a small integer column.
#[cfg(feature = "diesel")]
#[macro_export]
macro_rules! small_int_column {
    ($type:ident { $($variant:ident = $number:literal),+ $(,)? }) => {
        impl<DB> ::diesel::serialize::ToSql<::diesel::sql_types::SmallInt, DB> for $type
        where
            DB: ::diesel::backend::Backend,
            i16: ::diesel::serialize::ToSql<::diesel::sql_types::SmallInt, DB>,
        {
            fn to_sql<'b>(
                &'b self,
                out: &mut ::diesel::serialize::Output<'b, '_, DB>,
            ) -> ::diesel::serialize::Result {
                match self {
                    $(Self::$variant => <i16 as ::diesel::serialize::ToSql<_, DB>>::to_sql(&$number, out),)+
                }
            }
        }

        impl<DB> ::diesel::deserialize::FromSql<::diesel::sql_types::SmallInt, DB> for $type
        where
            DB: ::diesel::backend::Backend,
            i16: ::diesel::deserialize::FromSql<::diesel::sql_types::SmallInt, DB>,
        {
            fn from_sql(bytes: DB::RawValue<'_>) -> ::diesel::deserialize::Result<Self> {
                match <i16 as ::diesel::deserialize::FromSql<_, DB>>::from_sql(bytes)? {
                    $($number => Ok(Self::$variant),)+
                    other => Err(format!("invalid {}: {other}", stringify!($type)).into()),
                }
            }
        }
    };
}
