# seal PATH: notes names, sizes and times of what was made; `sealed PATH`: whether all is as noted.
manifest() { find -L "$1" -name __pycache__ -prune -o -type f ! -name '.seal*' -printf '%P %s %T@\n' 2>/dev/null | sort; }
seal_of() { if [ -d "$1" ]; then echo "$1/.seal"; else echo "$1.seal"; fi; }
seal() { manifest "$1" >"$(seal_of "$1").new" && mv "$(seal_of "$1").new" "$(seal_of "$1")"; }
sealed() { [ -e "$1" ] && [ -e "$(seal_of "$1")" ] && manifest "$1" | cmp -s - "$(seal_of "$1")"; }
