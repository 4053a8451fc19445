"""What `cauce chaos` says, in Spanish: see `words`."""

CHAOS: dict[str, str] = {
    "{streams} streams at {nodes} nodes, kept in {store}, seed {seed}": (
        "{streams} streams en {nodes} nodos, guardados en {store}, semilla {seed}"
    ),
    "streams: {ended}": "streams: {ended}",
    "faults: {faults}": "fallos: {faults}",
    "{events} events checked over {connections} connections in {seconds} s": (
        "{events} eventos comprobados en {connections} conexiones en {seconds} s"
    ),
    "{count:.0f} times a stream lost its server, and was gone on with after {seconds:g} s at most": (
        "{count:.0f} veces un stream perdió su servidor, y se siguió con él a los {seconds:g} s como mucho"
    ),
    "answers that broke off, as the settings have it: {excused}": (
        "respuestas que se han interrumpido, como dicen los ajustes: {excused}"
    ),
    "in force, as you have them: {settings}": "en vigor, como los tienes: {settings}",
    "in force, as they are by default: the rest of [streams], [recovery], [retry], [queue], [cache]": (
        "en vigor, con sus valores por defecto: el resto de [streams], [recovery], [retry], [queue], [cache]"
    ),
    "[streams] store = {used}, not {given}: --store says so": (
        "[streams] store = {used}, y no {given}: lo dice --store"
    ),
    "{key} is one of the run's own: your streams are left alone": (
        "{key} es propio de la ejecución: tus streams no se tocan"
    ),
    "[streams] folder is set, though you have none: {nodes} servers share it": (
        "[streams] folder está puesto, aunque tú no lo tienes: lo comparten {nodes} servidores"
    ),
    "one server, not {nodes}: in memory each has streams of its own": (
        "un servidor, y no {nodes}: en memoria cada uno tiene sus propios streams"
    ),
    "in place of yours: {setting}: a server that is stopped is to leave streams to the next": (
        "en lugar de lo tuyo: {setting}: un servidor que se detiene ha de dejar streams al siguiente"
    ),
    "in place of yours: {settings}: the provider falls silent, and is waited for each time": (
        "en lugar de lo tuyo: {settings}: el proveedor se queda callado, y cada vez hay que esperarlo"
    ),
    "[breaker] enabled = false: the provider fails on purpose, and would be left alone": (
        "[breaker] enabled = false: el proveedor falla a propósito, y se le dejaría en reposo"
    ),
    "[limits] and [budgets] are left out: they are of your models and keys, and no run asks those": (
        "[limits] y [budgets] quedan fuera: son de tus modelos y claves, y ninguna ejecución los usa"
    ),
    "[recovery] attempts = 0: an answer that breaks may end there, and has to say so": (
        "[recovery] attempts = 0: una respuesta que se rompe puede acabar ahí, y tiene que decirlo"
    ),
    "[recovery] attempts = {attempts}: an answer may break off after as many": (
        "[recovery] attempts = {attempts}: una respuesta puede interrumpirse después de tantos"
    ),
    "[streams] max_stream = {bytes}, max_records = {records}: a longer answer has to end there": (
        "[streams] max_stream = {bytes}, max_records = {records}: una respuesta más larga tiene que acabar ahí"
    ),
    "{settings}: an answer that lasts for longer may break off": (
        "{settings}: una respuesta que dura más puede interrumpirse"
    ),
    'midstream = "fail": an answer that breaks has to end there, and to say so': (
        'midstream = "fail": una respuesta que se rompe tiene que acabar ahí, y decirlo'
    ),
    'midstream = "resume": an answer may break off where no model goes on exactly': (
        'midstream = "resume": una respuesta puede interrumpirse donde ningún modelo sigue exactamente'
    ),
    "on_disconnect: an answer that nobody reads may end as cancelled": (
        "on_disconnect: una respuesta que nadie lee puede acabar cancelada"
    ),
    'store = "memory": streams may go with their server, and must not come back as others': (
        'store = "memory": los streams pueden irse con su servidor, y no pueden volver siendo otros'
    ),
    "not judged: what a power cut takes with synchronous = {value}, since only servers end here": (
        "no se juzga: lo que se lleva un corte de luz con synchronous = {value}, porque aquí solo acaban servidores"
    ),
    "not judged: how servers take over from each other, since there is one; [streams] lease is of no account": (
        "no se juzga: cómo se relevan los servidores, porque hay uno; [streams] lease no cuenta"
    ),
    "not judged: how servers take over from each other. [streams] lease = {lease:g} asks for --seconds {needed:.0f}; "
    "in {seconds} s none is killed, and none is paused for as long": (
        "no se juzga: cómo se relevan los servidores. [streams] lease = {lease:g} pide --seconds {needed:.0f}; "
        "en {seconds} s no se mata ninguno, y ninguno se para tanto tiempo"
    ),
    "{seconds} s and not {usual}: [streams] lease = {lease:g} asks for it": (
        "{seconds} s y no {usual}: lo pide [streams] lease = {lease:g}"
    ),
    "not tried: {names} of [models]": "no se prueba: {names} de [models]",
    "not tried: {names} of [providers]": "no se prueba: {names} de [providers]",
    "not tried: max_cost and unattended_max_cost, since the provider costs nothing": (
        "no se prueban: max_cost y unattended_max_cost, porque el proveedor no cuesta nada"
    ),
    "the report cannot be written: {error}": "el informe no se puede escribir: {error}",
    "not judged, since nothing of it happened: {names}": "no se juzga, porque no pasó nada de eso: {names}",
    "nothing was violated: {count} invariants held": "no se ha violado nada: {count} invariantes se cumplen",
    "{count} violations: {broken}": "{count} violaciones: {broken}",
}
