-- All columns, by strings that begin alike: 1443 MiB at scale factor 1.
select * from lineitem order by l_comment
