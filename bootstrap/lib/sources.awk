# The host's apt sources, deb822 (*.sources) and one-line (*.list), as lines of
#   uri <TAB> suite <TAB> components <TAB> signed-by
# A key that is written inline comes out with \n for its line ends.

function emit(    u, s, nu, ns, i, j) {
    if (types ~ /(^| )deb( |$)/ && enabled !~ /^(no|false|off|0)$/) {
        nu = split(uris, u, " "); ns = split(suites, s, " ")
        for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++)
            if (u[i] !~ /^(cdrom|file|copy):/) print u[i] "\t" s[j] "\t" components "\t" key
    }
    types = uris = suites = components = key = field = ""; enabled = "yes"
}

function put(name, value) {
    if (name == "types") types = types " " value
    else if (name == "uris") uris = uris " " value
    else if (name == "suites") suites = suites " " value
    else if (name == "components") components = components (components == "" ? "" : " ") value
    else if (name == "enabled") enabled = tolower(value)
    else if (name == "signed-by") key = key value
}

BEGIN { enabled = "yes" }
FNR == 1 { emit(); deb822 = FILENAME ~ /\.sources$/ }
/^[ \t]*#/ { next }
{ sub(/\r$/, "") }

deb822 && /^[ \t]*$/ { emit(); next }
deb822 && /^[ \t]/ {
    value = $0; sub(/^[ \t]+/, "", value); sub(/[ \t]+$/, "", value)
    put(field, field == "signed-by" ? "\\n " value : value); next
}
deb822 {
    colon = index($0, ":"); field = tolower(substr($0, 1, colon - 1))
    value = substr($0, colon + 1); gsub(/^[ \t]+|[ \t]+$/, "", value)
    put(field, value); next
}

$1 == "deb" {
    sub(/[ \t]#.*/, ""); sub(/^[ \t]*deb[ \t]+/, ""); options = ""
    if (match($0, /^\[[^]]*\][ \t]*/)) { options = substr($0, 2, RLENGTH - 2); $0 = substr($0, RLENGTH + 1) }
    gsub(/[]]/, " ", options)
    types = "deb"; uris = $1; suites = $2
    for (i = 3; i <= NF; i++) put("components", $i)
    n = split(options, option, /[ \t]+/)
    for (i = 1; i <= n; i++) if (tolower(option[i]) ~ /^signed-by=/) key = substr(option[i], 11)
    emit()
}
END { emit() }
