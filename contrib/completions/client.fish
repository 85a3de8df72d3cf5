# fish completion of client(1): options, and the words that some of them take. It asks no server.

set -l keys buffer-size buffer-memory max-connections max-connections-per-ip max-metp-sessions \
    dns-threads dns-queue allow-local local-for log-entries log-level grace drain-wait drain-limit \
    handshake-timeout resolve-timeout connect-timeout connect-total-timeout idle-timeout \
    half-close-timeout keepalive ack-timeout linger-timeout metp-login-timeout metp-idle-timeout \
    subscriber-timeout dns-cache dns-negative-cache prefer trust-any-login http-connect allow-resolve \
    allow-bind bind-timeout udp udp-filter udp-idle-timeout udp-log \
    max-associations auth-threads
set -l levels off error warn info debug trace
set -l verbs GET_METRICS GET_LOGS USERS CHANGE-BUFFER ADD-USER DELETE-USER SET-ROLE QUIT \
    CAPA PING INFO USER-METRICS CHANGE-PASSWORD CONNECTIONS KILL CONFIG SUBSCRIBE UNSUBSCRIBE \
    SHUTDOWN TRUST LOCK-USER UNLOCK-USER GENERATE-PASSWORD IMPORT RELOAD \
    LIMITS SET-LIMIT RESET-USAGE RULES RULE
# What --set takes: a key and =, and behind it the words that some of the keys take.
set -l settings $keys= log-level=$levels allow-local={on,off} \
    local-for={loopback,nobody,all} trust-any-login={on,off} http-connect={on,off} allow-resolve={on,off} \
    allow-bind={on,off} udp={on,off} udp-filter={any,address,port} prefer={ipv4,ipv6,system}

complete -c client -f
complete -c client -s h -l help -d 'show this help and exit'
complete -c client -s v -l version -d 'show the version and exit'
complete -c client -s H -l host -x -a '(__fish_print_hostnames)' -d 'servers (default METP_HOST, else 127.0.0.1)'
complete -c client -s p -l port -x -d 'METP port (default METP_PORT, else 8080)'
complete -c client -l wait -x -d 'try for SECONDS to reach a server'
complete -c client -s u -l user -x -d 'account to log in with (default METP_AUTH)'
complete -c client -l password-file -r -F -d 'read the password from the first line of FILE'
complete -c client -s q -l quiet -d 'do not mention connecting and closing'
complete -c client -l json -d 'print answers as JSON'
complete -c client -s m -l metrics -d 'show the number of connections and bytes'
complete -c client -l metrics-all -d 'show all metrics'
complete -c client -l user-metrics -d 'show usage of all users, or of USER'
complete -c client -l connections -d 'show open connections with their ids'
complete -c client -s g -l logs -d 'show the tunnels that were opened'
complete -c client -l info -d 'show state, version and limits of the server'
complete -c client -l capabilities -d 'show commands and event topics of the server'
complete -c client -s f -l follow -d 'show each request when it has finished'
complete -c client -s n -l last -x -d 'newest N tunnels: only these (-g), or first (-f)'
complete -c client -s w -l watch -d 'live screen, refreshed every SECONDS (default 1)'
complete -c client -s l -l users -d 'show the users'
complete -c client -s a -l add-user -x -d 'add a user; PASS is asked for if missing'
complete -c client -s d -l delete-user -x -d 'delete a user and cut their connections'
complete -c client -s r -l set-role -x -d 'set the role of a user: user or admin'
complete -c client -l password -x -d 'change a password; the new one is asked for'
complete -c client -l generate -x -d 'have a password made, and print it once'
complete -c client -l lock -x -d 'let nobody log in to an account'
complete -c client -l unlock -x -d 'let its user log in again'
complete -c client -l import -r -F -d 'add the accounts of a users file, or of stdin (-)'
complete -c client -l limits -d 'show the limits of all users, or of USER'
complete -c client -l set-limit -x -d 'set limits, KEY=VALUE, with blanks between them'
complete -c client -l reset-usage -x -d 'set the counters of a user back to zero'
complete -c client -l reload -d 'have the server read its files again'
complete -c client -l reload-cut -d 'reload, and cut what the rules deny now'
complete -c client -l rules -d 'show the rules with their hits'
complete -c client -l rules-test -x -d 'show what decides'
complete -c client -l rule-insert -x -d 'make RULE line LINE of the rules'
complete -c client -l rule-delete -x -d 'delete RULE, which is in line LINE'
complete -c client -l kill -x -d 'cut a connection'
complete -c client -l kill-user -x -d 'cut all connections of a user'
complete -c client -l config -a "$keys" -d 'show all settings, or KEY, with their ranges'
complete -c client -l set -x -a "$settings" -d 'change a setting'
complete -c client -l save -x -a "$keys" -d 'keep a setting as it is for later starts'
complete -c client -l trust -d 'show the networks that need no login'
complete -c client -l trust-add -x -d 'let a network in without a login'
complete -c client -l trust-delete -x -d 'ask a network for a login again'
complete -c client -s c -l change-buffer -x -d 'set the size of relay buffers'
complete -c client -l shutdown -d 'stop the server; tunnels get SECONDS to finish'

# To fish, an option has one value, and one that may be missing stands behind =. What else is a value:
complete -c client -n 'contains -- (commandline -opc)[-2] -r --set-role' -a 'user admin' -d role
complete -c client -n 'contains -- --config (commandline -opc)[-1]' -a "$keys" -d setting
complete -c client -n 'contains -- -- (commandline -opc)[-1]' -a "$verbs" -d 'verb of METP'
