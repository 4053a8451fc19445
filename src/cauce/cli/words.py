"""What commands say to people, in English and Spanish. Code holds the English; this module, what it is in Spanish.

Help texts are English only.
"""

import os

from cauce.cli.chaos_words import CHAOS

_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")
"""Where POSIX looks for the language of messages, first come first served."""


_SEPARATORS = str.maketrans(",.", ".,")
"""Spanish has the comma before decimals and the point between thousands."""


def say(english: str, **facts: object) -> str:
    """`english`, in the user's language, with `facts` put in."""
    return (SPANISH.get(english, english) if _in_spanish() else english).format(**facts)


def figure(english: str) -> str:
    """`english`, a number as English writes it, as the user's language does."""
    return english.translate(_SEPARATORS) if _in_spanish() else english


def _in_spanish() -> bool:
    chosen = next((value for name in _VARIABLES if (value := os.environ.get(name))), "")
    return chosen.lower().startswith("es")


SPANISH: dict[str, str] = {
    # answers
    "answered by {model}": "responde {model}",
    "answered by offline, from Cauce's own documentation": "responde offline, con la documentación de Cauce",
    "{model} failed: {reason}": "{model} ha fallado: {reason}",
    "no model is configured; `cauce config init` shows how to connect one": (
        "no hay ningún modelo configurado; `cauce config init` muestra cómo conectar uno"
    ),
    'there is no question: cauce ask "What is Cauce?", or pipe one in': (
        'falta la pregunta: cauce ask "¿Qué es Cauce?", o pásala por una tubería'
    ),
    "the answer was cut short: it reached its longest length (--max-tokens, or the model's own)": (
        "la respuesta está cortada: ha llegado a su longitud máxima (--max-tokens, o la del modelo)"
    ),
    "the answer was cut short by the provider's content filter": (
        "la respuesta está cortada por el filtro de contenido del proveedor"
    ),
    # chat
    "talking with {model}; /help shows what else there is": "hablas con {model}; /help muestra qué más hay",
    "talking with {model}": "hablas con {model}",
    "asking {model}": "preguntando a {model}",
    "stopped": "detenida",
    "stopped; the answer above is incomplete": "detenida; la respuesta de arriba está incompleta",
    "the answer above is incomplete": "la respuesta de arriba está incompleta",
    "the instructions hold from now on": "las instrucciones valen a partir de ahora",
    "no instructions from now on": "sin instrucciones a partir de ahora",
    "the conversation is forgotten": "la conversación está olvidada",
    "there is no command /{command}; /help lists them": "no existe el comando /{command}; /help los enumera",
    "{about}{given} + {made} tokens": "{about}{given} + {made} tokens",
    "/model NAME     ask another model from now on; without NAME: list them": (
        "/model NOMBRE   preguntar a otro modelo a partir de ahora; sin NOMBRE: enumerarlos"
    ),
    "/system TEXT    instructions for the model; without TEXT: none": (
        "/system TEXTO   instrucciones para el modelo; sin TEXTO: ninguna"
    ),
    "/clear          forget the conversation": "/clear          olvidar la conversación",
    "/exit           leave (also Ctrl-D)": "/exit           salir (también Ctrl-D)",
    "Enter sends, Alt-Enter or Esc Enter begins a new line, Ctrl-C stops an answer": (
        "Intro envía, Alt-Intro o Esc Intro empieza otra línea, Ctrl-C detiene una respuesta"
    ),
    # models
    "name": "nombre",
    "kind": "tipo",
    "route": "ruta",
    "provider": "proveedor",
    "local": "local",
    "offline": "offline",
    "alias": "alias",
    "asks {models}": "pregunta a {models}",
    "none of its models is there now": "ninguno de sus modelos está disponible ahora",
    "answers when no model is named": "responde si no se nombra ningún modelo",
    "answers from Cauce's own documentation": "responde con la documentación de Cauce",
    "window {tokens} tokens": "ventana de {tokens} tokens",
    "{input} USD in, {output} USD out per million tokens": "{input} USD de entrada y {output} USD de salida por millón de tokens",
    "loaded": "cargado",
    "{provider} does not list its models: {error}": "{provider} no enumera sus modelos: {error}",
    # route
    "{file} cannot be read: {reason}": "no se puede leer {file}: {reason}",
    "{model}, order {order}:": "{model}, orden {order}:",
    "about {tokens:,} tokens, complexity {complexity:g}": "unos {tokens:,} tokens, complejidad {complexity:g}",
    "nobody is asked: the request is refused": "no se pregunta a nadie: la petición se rechaza",
    "this machine": "esta máquina",
    "the cloud": "la nube",
    "nothing leaves this machine: models elsewhere and stores that servers share are left out": (
        "nada sale de esta máquina: los modelos de fuera y lo que comparten los servidores quedan excluidos"
    ),
    "task {task}: {first} first": "tarea {task}: primero {first}",
    "{bound:g} tokens or more: {first} first": "{bound:g} tokens o más: primero {first}",
    "complexity of {bound:g} or more: {first} first": "complejidad de {bound:g} o más: primero {first}",
    "{bound:g} tokens or fewer: {first} first": "{bound:g} tokens o menos: primero {first}",
    "no other rule holds: {first} first": "no vale ninguna otra regla: primero {first}",
    "on this machine": "en esta máquina",
    "elsewhere": "fuera",
    "about {price:.2g} USD": "unos {price:.2g} USD",
    "the request may be too long for it": "la petición puede ser demasiado larga para él",
    "{seconds:.2g} s to its first words": "{seconds:.2g} s hasta sus primeras palabras",
    "left alone for {seconds:.2g} s, since it failed": "en reposo durante {seconds:.2g} s, porque ha fallado",
    "as listed": "según la lista",
    "by tier ({tier})": "por nivel ({tier})",
    "put first by the rule": "puesto primero por la regla",
    "behind what the rule puts first": "detrás de lo que la regla pone primero",
    "by weight, chance and load (another request may be drawn otherwise)": (
        "por peso, azar y carga (a otra petición le puede tocar otro)"
    ),
    "by price": "por precio",
    "by the time to its first words": "por el tiempo hasta sus primeras palabras",
    "by what people think of its answers": "por lo que se opina de sus respuestas",
    "another deployment of the same model": "otro despliegue del mismo modelo",
    "named by the request as a fallback": "lo nombra la petición como alternativa",
    "the last resort": "el último recurso",
    "its server is not there now": "su servidor no está disponible ahora",
    "its models could not be listed, so it is not asked until they are": (
        "no se pudo obtener la lista de sus modelos, así que no se le pregunta hasta tenerla"
    ),
    "it is not on this machine": "no está en esta máquina",
    "it cannot go on with such a prompt": "no puede continuar un texto así",
    "about {tokens:,} tokens are too many for its window of {window:,}": (
        "unos {tokens:,} tokens son demasiados para su ventana de {window:,}"
    ),
    "nobody else is asked when the request is too long": (
        "no se pregunta a nadie más si la petición es demasiado larga"
    ),
    # usage
    "there is no ledger in {folder} yet: `cauce serve` keeps one": (
        "todavía no hay libro de cuentas en {folder}: lo lleva `cauce serve`"
    ),
    "the ledger cannot be read: {error}": "no se puede leer el libro de cuentas: {error}",
    "{since} to {until} (UTC)": "{since} a {until} (UTC)",
    "nothing was used": "no se ha usado nada",
    "total": "total",
    "requests": "peticiones",
    "answered": "contestadas",
    "failed": "fallos",
    "tokens in": "tokens de entrada",
    "tokens out": "tokens de salida",
    "USD": "USD",
    "p50 s": "p50 s",
    "p95 s": "p95 s",
    "liked": "gusta",
    "model": "modelo",
    "endpoint": "función",
    "key": "clave",
    "user": "usuario",
    "conversation": "conversación",
    "level": "nivel",
    "day": "día",
    "tenant": "inquilino",
    "deployment": "despliegue",
    "of which estimated: {tokens} tokens, {dollars} USD": "de ello, estimado: {tokens} tokens, {dollars} USD",
    "without a known price, so not in the sum: {tokens} tokens": (
        "sin precio conocido, y por eso fuera de la suma: {tokens} tokens"
    ),
    "{count} more are left out; --json shows them": "se omiten otros {count}; --json los muestra",
    "{count} tokens": "{count} tokens",
    "this month: {so_far} so far; too little is known for a forecast": (
        "este mes: {so_far} hasta ahora; se sabe demasiado poco para una previsión"
    ),
    "this month: {so_far} so far, about {expected} at its end (too little is known for a band)": (
        "este mes: {so_far} hasta ahora, unos {expected} a su fin (se sabe demasiado poco para un margen)"
    ),
    "this month: {so_far} so far, about {expected} at its end ({low} to {high}, 4 times in 5)": (
        "este mes: {so_far} hasta ahora, unos {expected} a su fin (de {low} a {high}, 4 de cada 5 veces)"
    ),
    # keys
    "{place}: begins with a letter or digit, then letters, digits, dots, dashes and underscores": (
        "{place}: empieza por letra o cifra y sigue con letras, cifras, puntos, guiones y guiones bajos"
    ),
    "there is a key called {name} already: choose another name": "ya hay una clave llamada {name}: elige otro nombre",
    "{file} accepts this key from the next start on; it is not shown again:": (
        "{file} acepta esta clave a partir del próximo arranque; no se vuelve a mostrar:"
    ),
    "The key. It is not shown again:": "La clave. No se vuelve a mostrar:",
    "Add these lines to cauce.toml and start the server again:": (
        "Añade estas líneas a cauce.toml y arranca de nuevo el servidor:"
    ),
    "no keys: any key or none is accepted, from this machine only": (
        "no hay claves: se acepta cualquiera o ninguna, solo desde esta máquina"
    ),
    # config
    "{file} is written. Every setting in it is commented out: nothing has changed yet.": (
        "{file} está escrito. Todos sus ajustes están comentados: aún no ha cambiado nada."
    ),
    "{file} is there already: --force overwrites it": "{file} ya existe: --force lo sobrescribe",
    "{file} cannot be written: {reason}": "no se puede escribir {file}: {reason}",
    "defaults": "valores por defecto",
    "from other variables": "de otras variables",
    # check
    "Configuration": "Configuración",
    "Server": "Servidor",
    "Providers": "Proveedores",
    "Models": "Modelos",
    "Timeouts": "Tiempos de espera",
    "read from {sources}": "leída de {sources}",
    "no file and no variables: the defaults hold (`cauce config init` writes a file)": (
        "sin archivo ni variables: valen los valores por defecto (`cauce config init` escribe un archivo)"
    ),
    "`cauce serve` listens on {host}:{port}, which only this machine reaches": (
        "`cauce serve` escucha en {host}:{port}, adonde solo llega esta máquina"
    ),
    "`cauce serve` listens on {host}:{port}, which other machines may reach": (
        "`cauce serve` escucha en {host}:{port}, adonde pueden llegar otras máquinas"
    ),
    "the port is free": "el puerto está libre",
    "streams are kept in a file: a restart goes on with them": (
        "los streams se guardan en un archivo: un reinicio sigue con ellos"
    ),
    "streams are kept in {folder}: servers that name it take over from each other": (
        "los streams se guardan en {folder}: los servidores que la nombran se relevan unos a otros"
    ),
    "streams are kept in PostgreSQL, which answers": "los streams se guardan en PostgreSQL, que responde",
    "streams are kept in Redis, which answers": "los streams se guardan en Redis, que responde",
    "streams are kept in memory: they end with the server": (
        "los streams se guardan en memoria: terminan con el servidor"
    ),
    "the log of streams ({store}) does not answer: {reason}; until it does, streams are refused": (
        "el registro de streams ({store}) no responde: {reason}; mientras tanto se rechazan los streams"
    ),
    "a Cauce is running there now": "ahora mismo hay un Cauce en marcha ahí",
    "the port is taken by another program: stop that one, or choose another [server] port": (
        "el puerto lo tiene otro programa: detenlo, o elige otro [server] port"
    ),
    "that address is not to be had: {reason}": "esa dirección no se puede usar: {reason}",
    "API keys: {names}": "claves de API: {names}",
    "no API keys: any key or none is accepted": "sin claves de API: se acepta cualquiera o ninguna",
    "{files} files may be open (ulimit -Hn), which has room for {connections} connections at once": (
        "se pueden abrir {files} archivos (ulimit -Hn), con lo que caben {connections} conexiones a la vez"
    ),
    "the data folder {folder} can be written": "se puede escribir en la carpeta de datos {folder}",
    "none configured: set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY, or see `cauce config init`": (
        "ninguno configurado: define OPENAI_API_KEY, ANTHROPIC_API_KEY o GEMINI_API_KEY, o mira `cauce config init`"
    ),
    "a key is set": "con clave",
    "no key is set": "sin clave",
    "1 model": "1 modelo",
    "{count} models": "{count} modelos",
    "lists {models} in {seconds} s": "enumera {models} en {seconds} s",
    "connected in {ms:.1f} ms": "conectado en {ms:.1f} ms",
    "TLS in {ms:.1f} ms": "TLS en {ms:.1f} ms",
    "first byte after {ms:.1f} ms": "primer byte a los {ms:.1f} ms",
    "servers on this machine are not looked for ([discovery] enabled = false)": (
        "no se buscan servidores en esta máquina ([discovery] enabled = false)"
    ),
    "no model server was found on this machine": "no se ha encontrado ningún servidor de modelos en esta máquina",
    "{name}: found on this machine, {models}": "{name}: encontrado en esta máquina, {models}",
    "offline: always there, answers from Cauce's own documentation": (
        "offline: siempre está, responde con la documentación de Cauce"
    ),
    "auto asks, in this order: {models}": "auto pregunta, en este orden, a: {models}",
    "{name} asks, in this order: {models}": "{name} pregunta, en este orden, a: {models}",
    "of its own: {settings}": "lo suyo: {settings}",
    "{alias} stands for {model}": "{alias} significa {model}",
    "a request that names no model goes to {model}": "una petición que no nombra modelo va a {model}",
    "{connect:g} s to connect, {first_delta:g} s to the first words, {idle:g} s between bytes, "
    "{stalled:g} s of nothing but pings, {total:g} s in all, "
    "{logged:g} s where the answer is a logged stream": (
        "{connect:g} s para conectar, {first_delta:g} s hasta las primeras palabras, {idle:g} s entre bytes, "
        "{stalled:g} s sin nada más que pings, "
        "{total:g} s en total, {logged:g} s si la respuesta es un stream registrado"
    ),
    "{seconds:g} s for a plain answer of /llm/message": "{seconds:g} s para una respuesta sin streaming de /llm/message",
    "all is well": "todo está bien",
    "not every provider answers: {names}": "no responden todos los proveedores: {names}",
    "`cauce serve` would refuse to start": "`cauce serve` se negaría a arrancar",
    "listening on {host} without API keys would let anyone use your models: make a key with "
    "`cauce keys new NAME`, or pass --insecure": (
        "escuchar en {host} sin claves de API dejaría usar tus modelos a cualquiera: crea una clave con "
        "`cauce keys new NOMBRE`, o pasa --insecure"
    ),
    "cannot listen on {host}:{port}: {reason}": "no se puede escuchar en {host}:{port}: {reason}",
    "the data folder {folder} cannot be used: {reason}: set another [server] data_dir": (
        "la carpeta de datos {folder} no sirve: {reason}: pon otra en [server] data_dir"
    ),
    "the folder of streams {folder} cannot be used: {reason}: set another [streams] folder": (
        "la carpeta de streams {folder} no sirve: {reason}: pon otra en [streams] folder"
    ),
    "[redis] nodes is 1: where several processes share Redis, each takes the whole of every limit while it is gone; set how many they are": (
        "[redis] nodes es 1: si varios procesos comparten Redis, cada uno toma cada límite entero mientras falta; pon cuántos son"
    ),
    '[{table}."{glob}"] fits no API key, so it holds for nobody: there are {names}': (
        '[{table}."{glob}"] no encaja con ninguna clave de API, así que no vale para nadie: hay {names}'
    ),
    '[budgets.tenants."{glob}"] fits no tenant, so it holds for nobody: there are {names}': (
        '[budgets.tenants."{glob}"] no encaja con ningún inquilino, así que no vale para nadie: hay {names}'
    ),
    '[{table}."{glob}"] fits no provider that is there now, so it holds for no model: there are {names}': (
        '[{table}."{glob}"] no encaja con ningún proveedor que esté ahora, así que no vale para ningún modelo: hay {names}'
    ),
    "{name} does not list its default_model {model}": "{name} no enumera su default_model {model}",
    "{name} has no default_model: its name alone asks {model}, the first it lists": (
        "{name} no tiene default_model: su nombre por sí solo pregunta a {model}, el primero que enumera"
    ),
    "{name} has no default_model, so auto does not ask it": "{name} no tiene default_model, así que auto no le pregunta",
    "{name} has no default_model, and its models could not be listed, so auto does not ask it until they are": (
        "{name} no tiene default_model, y no se pudo obtener la lista de sus modelos, así que auto no le pregunta hasta tenerla"
    ),
    "route {route}: {name} does not list {model}": "ruta {route}: {name} no enumera {model}",
    "route {route}: {model} is not there now": "ruta {route}: {model} no está disponible ahora",
    "alias {alias}: {model} is not there now": "alias {alias}: {model} no está disponible ahora",
    "the default model {model} is not there now": "el modelo por defecto {model} no está disponible ahora",
    # what to do about a provider
    "its key is refused: check api_key of [providers.{name}]": (
        "rechaza la clave: revisa api_key de [providers.{name}]"
    ),
    'it wants a key and none is set: give [providers.{name}] an api_key = "env:VARIABLE"': (
        'pide una clave y no hay ninguna: pon en [providers.{name}] api_key = "env:VARIABLE"'
    ),
    "base_url of [providers.{name}] mostly ends in /v1: is {base_url}/v1 right?": (
        "base_url de [providers.{name}] suele terminar en /v1: ¿será {base_url}/v1?"
    ),
    "there is no {base_url}/models: check base_url of [providers.{name}]": (
        "no existe {base_url}/models: revisa base_url de [providers.{name}]"
    ),
    "the key is accepted, but its limit is reached: wait, or look at the plan it belongs to": (
        "acepta la clave, pero ha llegado a su límite: espera, o mira el plan al que pertenece"
    ),
    "the provider has trouble of its own: try again later": "el proveedor tiene problemas propios: prueba más tarde",
    "nothing listens there: is the server running, and is the port in base_url right?": (
        "nadie escucha ahí: ¿está en marcha el servidor, y es ese el puerto de base_url?"
    ),
    "there is no such host: check base_url, or this machine's network": (
        "no existe ese host: revisa base_url, o la red de esta máquina"
    ),
    "there is no secure connection: does base_url need http:// instead of https://, or a certificate?": (
        "no hay conexión segura: ¿necesita base_url http:// en lugar de https://, o un certificado?"
    ),
    "no answer in time: is that address reachable from here (network, VPN, firewall)?": (
        "no responde a tiempo: ¿se llega a esa dirección desde aquí (red, VPN, cortafuegos)?"
    ),
    # serve
    "Cauce {version} listens on {url}": "Cauce {version} escucha en {url}",
    "configuration": "configuración",
    "providers": "proveedores",
    "local servers": "servidores locales",
    "data folder": "carpeta de datos",
    "API keys": "claves de API",
    "look at": "mira en",
    "note": "nota",
    "Try it:": "Pruébalo:",
    "How do I configure a provider?": "¿Cómo configuro un proveedor?",
    "none: defaults (cauce config init writes a file)": (
        "ninguna: valores por defecto (cauce config init escribe un archivo)"
    ),
    "none: set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY, or see cauce config init": "ninguno: define OPENAI_API_KEY, ANTHROPIC_API_KEY o GEMINI_API_KEY, o mira cauce config init",
    "none: any key or none is accepted": "ninguna: se acepta cualquier clave, o ninguna",
    "always there: answers from Cauce's own documentation": ("siempre está: responde con la documentación de Cauce"),
    'pages opened from a file need [server] cors_origins = ["null"]': (
        'las páginas abiertas desde un archivo necesitan [server] cors_origins = ["null"]'
    ),
    "not looked for ([discovery] enabled = false)": "no se buscan ([discovery] enabled = false)",
    "{name} ({count} models)": "{name} ({count} modelos)",
    "none found (Ollama, LM Studio, llama.cpp, vLLM, Foundry Local are looked for every {seconds} s)": (
        "ninguno (Ollama, LM Studio, llama.cpp, vLLM y Foundry Local se buscan cada {seconds} s)"
    ),
    # chaos
    **CHAOS,
}
