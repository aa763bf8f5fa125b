-- Called by `dispatchbox doctor`: how the server sees this connection: version and cipher of TLS,
-- null without, and whether the client is on the server's host. Behind a pooler it is the pooler's
-- own connection.
select s.version, s.cipher,
       inet_client_addr() is null or inet_client_addr() <<= inet '127.0.0.0/8' or host(inet_client_addr()) = '::1'
         or inet_client_addr() = inet_server_addr()
  from (select max(version) as version, max(cipher) as cipher from pg_stat_ssl where pid = pg_backend_pid() and ssl) s
